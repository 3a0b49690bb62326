"""Finds the collective operations of a compiled program, and their mesh axes.

XLA writes replica groups in three forms: as lists, `{{0,1},{2,3}}`; as a reshaped range,
`[2,2]<=[2,2]T(1,0)`; and as axes of a mesh, `mesh['a'=2,'b'=2] {'b'}`. The devices of this mesh may
be a reshaped range: `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deeplab_jax.planning.hlo import Array, Instruction, Program

Groups = list[list[int]]

RANGE = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
MESH = re.compile(
    r"mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{([^}:]*)\}"
)
CHANNEL = re.compile(r"channel_id=(\d+)")
PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


def read_groups(attributes: str) -> Groups | None:
    """Returns the groups of devices in `replica_groups=…` of an instruction's attributes.

    If there is no such attribute, the result is None.
    """
    _, found, text = attributes.partition("replica_groups=")
    if not found:
        return None
    if text.startswith(("mesh", "[")):
        return _of_mesh(text) if text.startswith("mesh") else _of_range(text)
    return _lists(text)


def read_pairs(attributes: str) -> Groups | None:
    """Returns the pairs of devices in `source_target_pairs=…` of an instruction's attributes.

    If there is no such attribute, the result is None.
    """
    found = PAIRS.search(attributes)
    return None if found is None else _lists(f"{{{found[1]}}}")


def axes_joined(groups: Iterable[Sequence[int]], mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the names of the mesh axes along which the devices of a group communicate.

    Args:
      groups: groups of partition numbers, which are indices of devices in the order of the mesh. An
        empty list means one group of all partitions.
      mesh_shape: length of each axis, in the order of the mesh.
    """
    names, shape = list(mesh_shape), tuple(mesh_shape.values())
    groups = list(groups) or [range(math.prod(shape))]
    apart = np.zeros(len(names), bool)
    for group in groups:
        places = np.stack(np.unravel_index(np.asarray(group), shape))
        apart |= (places != places[:, :1]).any(1)
    return tuple(name for name, joined in zip(names, apart, strict=True) if joined)


def _lists(text: str) -> Groups:
    """Parses groups of the form `{{0,1},{2,3}}` at the start of a text."""
    inner = re.match(r"\{((?:\{[\d,]*\},?)*)\}", text)
    return [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", inner[1] if inner else "")]


def _matched(form: re.Pattern[str], text: str) -> re.Match[str]:
    found = form.match(text)
    if found is None:
        raise ValueError(f"unknown form of replica groups in the compiled program: {text[:60]}")
    return found


def _of_range(text: str) -> Groups:
    """Parses groups of the form `[groups,members]<=[shape]T(order)`."""
    found = _matched(RANGE, text)
    target, source, order = (_numbers(part or "") for part in found.groups())
    numbers = np.arange(math.prod(source)).reshape(source)
    return (numbers.transpose(order) if order else numbers).reshape(target).tolist()


def _of_mesh(text: str) -> Groups:
    """Parses groups of the form `mesh['a'=2,'b'=2], device_ids=([4]) {'b'}`.

    The devices of a group differ only in their positions along the axes in braces.
    """
    found = _matched(MESH, text)
    axes = {name: int(length) for name, length in re.findall(r"'(\w+)'=(\d+)", found[1])}
    joined = re.findall(r"'(\w+)'", found[4])
    shape = tuple(axes.values())
    numbers = np.arange(math.prod(shape))
    if found[2]:
        numbers = numbers.reshape(_numbers(found[2]))
        numbers = numbers.transpose(_numbers(found[3])) if found[3] else numbers
    numbers = numbers.reshape(shape)
    last = np.moveaxis(numbers, [list(axes).index(name) for name in joined], range(-len(joined), 0))
    return last.reshape(-1, math.prod(axes[name] for name in joined)).tolist()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


# Kind of a transfer from one TPU slice to others, which the host of a chip sends.
SEND = "send"
TRANSFER = re.compile(r"_xla_megascale_transfer_type=\"?(\w+)")
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
    """Collective operation of a compiled program.

    Attributes:
      kind: HLO operation, such as `all-reduce` or `all-gather` (one of `KINDS`); `send` for a
        transfer to other slices.
      arrays: operands on one chip; for an all-gather, the results on one chip.
      axes: names of the mesh axes along which chips communicate. For `send`, the tuple contains
        instead the kind of the collective that the transfer is a part of, such as `all-reduce`.
      times: number of executions per step.
    """

    kind: str
    arrays: tuple[Array, ...]
    axes: tuple[str, ...]
    times: int

    @property
    def bytes(self) -> int:
        """Bytes of the arrays, summed over all executions in a step."""
        return self.times * sum(array.bytes for array in self.arrays)


def find_collectives(program: Program, mesh_shape: Mapping[str, int]) -> list[Collective]:
    """Returns the collectives of a compiled program, in the order of the HLO text.

    The TPU compiler can split an asynchronous collective into parts, and fuse each part with
    operations that run at the same time. The text then contains the collective in each of these
    fusions, with the same channel number. Such a collective is returned only once.

    Args:
      program: program that is compiled for the mesh.
      mesh_shape: length of each axis, in the order of the mesh.
    """
    runs, fused = program.runs(), program.fused()
    found: list[Collective] = []
    channels: set[str] = set()
    for name, instructions in program.computations.items():
        if not runs.get(name):
            continue
        for instruction in instructions.values():
            channel = CHANNEL.search(instruction.attributes) if name in fused else None
            if channel and channel[1] in channels:
                continue
            collectives = list(_collective(instruction, instructions, mesh_shape, runs[name]))
            found += collectives
            if channel and collectives:
                channels.add(channel[1])
    return found


def _collective(
    instruction: Instruction,
    instructions: Mapping[str, Instruction],
    mesh_shape: Mapping[str, int],
    times: int,
) -> Iterator[Collective]:
    """Yields a `Collective` if the instruction is a collective, or a transfer between slices.

    An asynchronous collective consists of several instructions; only the instruction whose opcode
    ends in `-start` yields a `Collective`.
    """
    kind = instruction.opcode.removesuffix("-start")
    transfer = TRANSFER.search(instruction.attributes) if kind == SEND else None
    if transfer:
        sent = instructions[instruction.operands[0]].results
        yield Collective(kind, sent, (transfer[1].lower().replace("_", "-"),), times)
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
        # The results of an asynchronous all-gather are its operands, then the gathered arrays.
        skipped = len(operands) if instruction.opcode.endswith("-start") else 0
        arrays = instruction.results[skipped:] or instruction.results
    yield Collective(kind, arrays, axes_joined(groups, mesh_shape), times)


def between_slices(
    collectives: Iterable[Collective], chips_per_slice: int
) -> dict[str, dict[str, int]]:
    """Returns the number and the size of the transfers between TPU slices.

    Args:
      collectives: collectives of one chip. All chips of a slice send equally many bytes.
      chips_per_slice: number of chips in a slice.

    Returns:
      {kind: {"count": transfers per chip and step, "bytes": bytes per slice and step}}. A kind is
      the collective operation that the transfers are a part of, such as `all-reduce`.
    """
    by_name: dict[str, list[Collective]] = {}
    for each in collectives:
        if each.kind == SEND:
            by_name.setdefault(each.axes[0], []).append(each)
    counts = {name: count(found) for name, found in by_name.items()}
    return {
        name: {"count": found["count"], "bytes": found["bytes"] * chips_per_slice}
        for name, found in counts.items()
    }


def within_slices(collectives: Iterable[Collective]) -> list[Collective]:
    """Returns the collectives within a slice.

    The compiler replaces an all-reduce over several slices by a reduce-scatter within each slice,
    transfers of the resulting parts to the other slices, and an all-gather within each slice. The
    result contains only the reduce-scatter, as one `all-reduce` that represents all three.
    """
    found = list(collectives)
    if not any(each.kind == SEND for each in found):
        return found
    sums = ("all-reduce", "reduce-scatter")
    summed = Counter(array.size for each in found if each.kind in sums for array in each.arrays)
    kept = []
    for each in found:
        sizes = Counter(array.size for array in each.arrays)
        # The compiler combines small sums into tiles of 8 × 128 elements.
        tiles = all(array.shape[-2:] == (8, 128) for array in each.arrays)
        if each.kind == "all-gather" and (tiles or sizes <= summed):
            summed -= sizes
        elif each.kind == "reduce-scatter":
            kept.append(each._replace(kind="all-reduce"))
        elif each.kind != SEND:
            kept.append(each)
    return kept


def totals(collectives: Iterable[Collective]) -> dict[str, dict[str, int]]:
    """Returns the number and the size of the collectives of each kind.

    Returns:
      {kind: {"count": executions per step, "bytes": bytes per chip and step}}.
    """
    by_kind: dict[str, list[Collective]] = {}
    for collective in collectives:
        by_kind.setdefault(collective.kind, []).append(collective)
    return {kind: count(found) for kind, found in by_kind.items()}


def count(collectives: Iterable[Collective]) -> dict[str, int]:
    """Returns the number and the size of all collectives together.

    Returns:
      {"count": executions per step, "bytes": bytes per chip and step}.
    """
    found = list(collectives)
    return {"count": sum(each.times for each in found), "bytes": sum(each.bytes for each in found)}
