"""What the chips of a program send each other, from its compiled text."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from deeplab_jax.planning.hlo import Array, Instruction, Program
from deeplab_jax.planning.replica_groups import axes_joined, read_groups, read_pairs

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
        """Of its arrays, over all its runs in a step."""
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
