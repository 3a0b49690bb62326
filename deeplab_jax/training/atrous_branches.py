"""Names of ASPP's branches where a run goes on at another output stride."""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

Path = tuple[str, ...]
ASPP = "aspp"
BRANCH = re.compile(r"rate_(\d+)")


def at_rates_of(given: Mapping[Path, Any], wanted: Iterable[Path]) -> Mapping[Path, Any]:
    """Returns arrays under the names that their branches have at another output stride.

    A branch is named by its rate, and rates keep their extent in the image: all of them double when
    the output stride halves. Where rates differ in another way, they are other branches.

    Args:
      given: arrays by path, as trained.
      wanted: paths in the network to train.

    Source: DeepLab v3, section 3.3.
    """
    old, new = _rates(given), _rates(wanted)
    if len(old) != len(new) or len({Fraction(b, a) for a, b in zip(old, new, strict=True)}) != 1:
        return given
    names = dict(zip(old, new, strict=True))
    return {_renamed(path, names): array for path, array in given.items()}


def _rates(paths: Iterable[Path]) -> list[int]:
    found = {BRANCH.match(path[2]) for path in paths if path[1] == ASPP}
    return sorted({int(match[1]) for match in found if match})


def _renamed(path: Path, names: Mapping[int, int]) -> Path:
    if path[1] != ASPP:
        return path
    branch = BRANCH.sub(lambda match: f"rate_{names[int(match[1])]}", path[2], count=1)
    return (*path[:2], branch, *path[3:])
