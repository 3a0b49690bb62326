"""Which partitions of a program a collective joins, and along which axis of the mesh.

XLA writes groups in three ways: as lists, `{{0,1},{2,3}}`; as a reshaped range,
`[2,2]<=[2,2]T(1,0)`; and as axes of a mesh of its own, `mesh['a'=2,'b'=2] {'b'}`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Groups = list[list[int]]

RANGE = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}")
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


def read_groups(attributes: str) -> Groups | None:
    """Returns the groups of `replica_groups=…` in an instruction's attributes; None: has none."""
    _, found, text = attributes.partition("replica_groups=")
    if not found:
        return None
    if text.startswith("mesh"):
        return _of_mesh(text)
    if text.startswith("["):
        return _of_range(text).tolist()
    return _lists(text)


def read_pairs(attributes: str) -> Groups | None:
    """Returns the (source, target) pairs of a collective-permute; None: it has none."""
    found = PAIRS.search(attributes)
    return None if found is None else _lists(f"{{{found[1]}}}")


def axes_joined(groups: Iterable[Sequence[int]], mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the axes of the mesh along which members of a group lie apart.

    Args:
      groups: partitions by number, the position in the mesh's devices. An empty list stands for one
        group of all.
      mesh_shape: length of each axis, in the mesh's order.
    """
    names, shape = list(mesh_shape), tuple(mesh_shape.values())
    groups = list(groups) or [range(math.prod(shape))]
    apart = np.zeros(len(names), bool)
    for group in groups:
        places = np.stack(np.unravel_index(np.asarray(group), shape))
        apart |= (places != places[:, :1]).any(1)
    return tuple(name for name, joined in zip(names, apart, strict=True) if joined)


def _lists(text: str) -> Groups:
    """Reads `{{0,1},{2,3}}`; nothing of what follows it."""
    inner = re.match(r"\{((?:\{[\d,]*\},?)*)\}", text)
    if inner is None:
        return []
    return [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", inner[1])]


def _of_range(text: str) -> np.ndarray:
    """Reads `[groups,members]<=[shape]T(order)`."""
    found = RANGE.match(text)
    if found is None:
        raise ValueError(f"unknown form of replica groups: {text[:60]}")
    target, source, order = (_numbers(part or "") for part in found.groups())
    numbers = np.arange(math.prod(source)).reshape(source)
    return (numbers.transpose(order) if order else numbers).reshape(target)


def _of_mesh(text: str) -> Groups:
    """Reads `mesh['a'=2,'b'=2] {'b'}`: groups along the axes in braces."""
    found = MESH.match(text)
    if found is None or ":" in found[2]:
        raise ValueError(f"unknown form of replica groups: {text[:60]}")
    axes = {name: int(length) for name, length in re.findall(r"'(\w+)'=(\d+)", found[1])}
    joined = re.findall(r"'(\w+)'", found[2])
    names, shape = list(axes), tuple(axes.values())
    order = [names.index(name) for name in (*(n for n in names if n not in joined), *joined)]
    members = math.prod(axes[name] for name in joined)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose(order).reshape(-1, members).tolist()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
