"""The branches of ASPP, which are named by their rates."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]
ASPP = "aspp"
BRANCH = re.compile(r"rate_(\d+)")


def branch_rates(paths: Iterable[Path]) -> list[int]:
    """Returns the rates of the branches among the paths of variables, in rising order."""
    found = {BRANCH.match(path[2]) for path in paths if path[1] == ASPP}
    return sorted({int(match[1]) for match in found if match})


def rename_branches(arrays: Mapping[Path, Any], rates: Mapping[int, int]) -> dict[Path, Any]:
    """Returns arrays under the names that their branches have at other rates.

    Args:
      arrays: by path, `params` or `batch_stats` first.
      rates: new rate of every branch by its old one.
    """

    def renamed(path: Path) -> Path:
        if path[1] != ASPP:
            return path
        branch = BRANCH.sub(lambda match: f"rate_{rates[int(match[1])]}", path[2], count=1)
        return (*path[:2], branch, *path[3:])

    return {renamed(path): array for path, array in arrays.items()}


def rename_widths(
    widths: tuple[tuple[str, int], ...], rates: Mapping[int, int]
) -> tuple[tuple[str, int], ...]:
    """Returns an architecture's widths under the names that branches have at other rates.

    Args:
      widths: (path, channels) of each layer.
      rates: new rate of every branch by its old one.
    """
    arrays = {("params", *path.split("/")): channels for path, channels in widths}
    return tuple(("/".join(path[1:]), n) for path, n in rename_branches(arrays, rates).items())
