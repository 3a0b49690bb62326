"""Contents of a compiled program: its instructions, arithmetic and memory traffic.

XLA's own count takes a loop's body once, whatever the number of rounds.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

# Bytes of an element; types that are no arrays (tokens) have none.
ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
}
HEADER = re.compile(r"^(ENTRY )?%?([\w.~-]+) \(.*\{$")
NAMED = re.compile(r"^\s+(?:ROOT )?%?([\w.~-]+) = ")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
OPERAND = re.compile(r"%([\w.~-]+)")
TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CONDITION = re.compile(r"condition=%?([\w.~-]+)")
WHOLE_NUMBER = re.compile(r"^\((\d+)\)")
CALLED_ONCE = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation|condition)=%?([\w.~-]+)"
)
CALLED_LISTS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
BODY = re.compile(r"body=%?([\w.~-]+)")
# Their `to_apply` is applied to numbers, not to arrays.
REDUCTIONS = ("all-reduce", "reduce", "reduce-scatter", "reduce-window", "scatter", "sort", "map")


class Array(NamedTuple):
    """Element type and shape of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size without the padding of its layout."""
        return self.size * ITEM_BYTES[self.dtype]


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: unique in the program.
      opcode: as in `all-reduce`.
      results: the array, or those of the tuple.
      operands: names of instructions of the same computation.
      attributes: the rest of the line; of a constant its value as well.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str


class Program(NamedTuple):
    """A compiled program.

    Attributes:
      computations: instructions by name, by name of the computation.
      entry: the computation that runs.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def runs(self) -> dict[str, int]:
        """Returns how often each computation runs in one run of the program.

        A loop whose number of rounds is unknown counts as one round; of a choice every branch
        counts.
        """
        counts: dict[str, int] = defaultdict(int)

        def visit(name: str, times: int) -> None:
            counts[name] += times
            for instruction in self.computations[name].values():
                for called, rounds in self._called(instruction):
                    if called in self.computations:
                        visit(called, times * rounds)

        visit(self.entry, 1)
        return dict(counts)

    def _called(self, instruction: Instruction) -> Iterator[tuple[str, int]]:
        """Yields each computation that an instruction runs, and how often."""
        attributes = instruction.attributes
        if instruction.opcode.removesuffix("-start") in REDUCTIONS:
            return
        for name in CALLED_ONCE.findall(attributes):
            yield name, 1
        for names in CALLED_LISTS.findall(attributes):
            yield from ((name, 1) for name in OPERAND.findall(names))
        if body := BODY.search(attributes):
            yield body[1], self._rounds(attributes)

    def _rounds(self, attributes: str) -> int:
        """Returns how many rounds a loop has, of the compiler's own word or of its condition.

        A condition is taken for that of `lax.scan`, which counts from 0: round < number of rounds.
        """
        if told := TRIP_COUNT.search(attributes):
            return int(told[1])
        condition = self.computations.get(CONDITION.search(attributes)[1], {})
        for compared in condition.values():
            if compared.opcode != "compare" or "direction=LT" not in compared.attributes:
                continue
            limit = condition.get(compared.operands[-1])
            number = limit and limit.opcode == "constant" and WHOLE_NUMBER.match(limit.attributes)
            if number:
                return int(number[1])
        return 1


def parse(text: str) -> Program:
    """Returns the program of what `compiled.as_text()` gives.

    Raises:
      ValueError: it has no entry.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = HEADER.match(line)
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the compiled program's text has no ENTRY computation")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    named = NAMED.match(line)
    if not named:
        return None
    rest = line[named.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest) if rest and opcode != "constant" else 0
    results = tuple(
        Array(dtype, tuple(int(length) for length in shape.split(",") if length))
        for dtype, shape in ARRAY.findall(_without_layouts(kind))
        if dtype in ITEM_BYTES
    )
    return Instruction(named[1], opcode, results, tuple(OPERAND.findall(rest[:end])), rest[end:])


def _closing(text: str) -> int:
    """Returns the position behind the bracket that closes the one at the start."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position + 1
    return len(text)


def _without_layouts(kind: str) -> str:
    return re.sub(r"\{[^}]*\}|/\*.*?\*/", "", kind)


# They move no bytes of their own, or what they run is counted where it stands.
FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional")
)
WINDOW = re.compile(r"window=\{([^}]*)\}")
LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
CONTRACTING = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
FUSED = re.compile(r"calls=%?([\w.~-]+)")


def flops_in_later_rounds(program: Program) -> int:
    """Returns the operations of convolutions and products in all rounds of loops but the first."""
    return sum(
        (runs - 1) * computation_flops(program.computations[name])
        for name, runs in program.runs().items()
        if runs > 1
    )


def bytes_in_later_rounds(program: Program) -> int:
    """Returns the bytes read and written in all rounds of loops but the first, as an estimate.

    A round counts one entry of an array whose first axis is as long as the loop.
    """
    fused = {
        name
        for instructions in program.computations.values()
        for instruction in instructions.values()
        if instruction.opcode == "fusion"
        for name in FUSED.findall(instruction.attributes)
    }
    return sum(
        (runs - 1) * _computation_bytes(program.computations[name], runs)
        for name, runs in program.runs().items()
        if runs > 1 and name not in fused
    )


def computation_flops(instructions: Mapping[str, Instruction]) -> int:
    """Returns the operations of a computation's own convolutions and products, once."""
    return sum(_flops(instruction, instructions) for instruction in instructions.values())


def _flops(instruction: Instruction, instructions: Mapping[str, Instruction]) -> int:
    if instruction.opcode not in ("convolution", "dot"):
        return 0
    given = [instructions[name].results[0] for name in instruction.operands]
    if instruction.opcode == "dot":
        axes = CONTRACTING.search(instruction.attributes)[1]
        contracted = math.prod(given[0].shape[int(axis)] for axis in axes.split(",") if axis)
        return 2 * instruction.results[0].size * contracted
    return 2 * _convolution_products(given[0], given[1], instruction)


def _convolution_products(inputs: Array, kernel: Array, instruction: Instruction) -> int:
    """Counts multiply-adds; those with padding are none."""
    labels = LABELS.search(instruction.attributes)
    input_labels, kernel_labels, output_labels = labels.groups()
    output = instruction.results[0]
    found = WINDOW.search(instruction.attributes)
    window = dict(item.split("=") for item in found[1].split()) if found else {}
    positions = 1
    for axis in range(sum(label.isdigit() for label in output_labels)):
        positions *= _meetings(
            inputs.shape[input_labels.index(str(axis))],
            kernel.shape[kernel_labels.index(str(axis))],
            output.shape[output_labels.index(str(axis))],
            window,
            axis,
        )
    others = output.shape[output_labels.index("b")] * output.shape[output_labels.index("f")]
    return positions * others * kernel.shape[kernel_labels.index("i")]


def _meetings(length: int, taps: int, outputs: int, window: Mapping[str, str], axis: int) -> int:
    """Counts pairs of output and tap that meet an input along one axis."""

    def setting(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    stride, rate, spread = (
        int(setting(name, "1")) for name in ("stride", "rhs_dilate", "lhs_dilate")
    )
    before = int(setting("pad", "0_0").split("_")[0])
    places = np.arange(outputs)[:, None] * stride - before + np.arange(taps) * rate
    inside = (places >= 0) & (places <= (length - 1) * spread)
    return int((inside & (places % spread == 0)).sum())


def _computation_bytes(instructions: Mapping[str, Instruction], rounds: int) -> int:
    def touched(array: Array) -> int:
        stacked = len(array.shape) > 1 and array.shape[0] == rounds
        return array.bytes // rounds if stacked else array.bytes

    return sum(
        touched(array)
        for instruction in instructions.values()
        if instruction.opcode not in FREE
        for results in (
            instruction.results,
            *(instructions[name].results for name in instruction.operands if name in instructions),
        )
        for array in results
    )
