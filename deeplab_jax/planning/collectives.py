"""Collectives of a compiled program, and the mesh axes that they join.

XLA writes groups in three ways: as lists, `{{0,1},{2,3}}`; as a reshaped range,
`[2,2]<=[2,2]T(1,0)`; and as axes of a mesh of its own, `mesh['a'=2,'b'=2] {'b'}`.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deeplab_jax.planning.hlo import Array, Instruction, Program

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


KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


class Collective(NamedTuple):
    """One collective operation.

    Attributes:
      kind: one of `KINDS`.
      arrays: what a chip gives to it; of an all-gather, what the chip gets.
      axes: of the mesh that it joins chips along.
      times: how often it runs in a step.
      origin: path of the operation that asked for it.
    """

    kind: str
    arrays: tuple[Array, ...]
    axes: tuple[str, ...]
    times: int
    origin: str

    @property
    def bytes(self) -> int:
        """Bytes of its arrays, over all its runs in a step."""
        return self.times * sum(array.bytes for array in self.arrays)


def find_collectives(program: Program, mesh_shape: Mapping[str, int]) -> list[Collective]:
    """Returns every collective of a program in the order of its text.

    Args:
      program: compiled for the mesh.
      mesh_shape: length of each axis, in the mesh's order.
    """
    runs = program.runs()
    return [
        collective
        for name, instructions in program.computations.items()
        if runs.get(name)
        for instruction in instructions.values()
        for collective in _collective(instruction, instructions, mesh_shape, runs[name])
    ]


def _collective(
    instruction: Instruction,
    instructions: Mapping[str, Instruction],
    mesh_shape: Mapping[str, int],
    times: int,
) -> Iterator[Collective]:
    """Yields the instruction as a collective if it is one; its `-done` half is none."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return
    groups = read_pairs(instruction.attributes) or read_groups(instruction.attributes) or []
    operands = tuple(
        array
        for name in instruction.operands
        if name in instructions
        for array in instructions[name].results
    )
    arrays = operands
    if kind == "all-gather":
        # The asynchronous half gives what it was given beside what it gathers.
        arrays = instruction.results[len(operands) :] or instruction.results
        arrays = arrays if instruction.opcode.endswith("-start") else instruction.results
    _, _, origin = instruction.attributes.partition('op_name="')
    yield Collective(kind, arrays, axes_joined(groups, mesh_shape), times, origin.partition('"')[0])


def totals(collectives: Iterable[Collective]) -> dict[str, dict[str, int]]:
    """Returns how often each kind runs in a step, and its bytes a chip."""
    found: dict[str, dict[str, int]] = {}
    for collective in collectives:
        total = found.setdefault(collective.kind, {"count": 0, "bytes": 0})
        total["count"] += collective.times
        total["bytes"] += collective.bytes
    return found
