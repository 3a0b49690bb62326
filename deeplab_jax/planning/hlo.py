"""Parser of compiled HLO text, which counts arithmetic and memory traffic in loops.

XLA's cost analysis counts the body of a loop only once, regardless of the number of iterations.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

# Bytes per element by type. Tokens and other types that are not arrays are left out.
ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
}
HEADER = re.compile(r"^(ENTRY )?%?([\w.~-]+) \(.*\{$")
NAMED = re.compile(r"^\s+(?:ROOT )?%?([\w.~-]+) = ")
# Layouts and comments in the type of a result.
LAYOUT = re.compile(r"\{[^}]*\}|/\*.*?\*/")
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
# Opcodes whose `to_apply` computation runs on scalars.
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
        """Size in bytes, without the padding of the layout."""
        return self.size * ITEM_BYTES[self.dtype]


class Instruction(NamedTuple):
    """Instruction of a computation.

    Attributes:
      name: name, which is unique in the program.
      opcode: operation, such as `all-reduce`.
      results: the resulting array, or the arrays of the resulting tuple.
      operands: names of the operands, which are instructions of the same computation.
      attributes: rest of the line, including the value of a constant.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str


class Program(NamedTuple):
    """Compiled program.

    Attributes:
      computations: {computation: {instruction: parsed instruction}}, both by name.
      entry: name of the computation that runs first.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def runs(self) -> dict[str, int]:
        """Returns how often each computation runs in one run of the program.

        A loop with an unknown number of iterations counts once, and so does every branch of a
        conditional.
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
        """Yields each computation that an instruction runs, and the number of runs."""
        attributes = instruction.attributes
        if instruction.opcode.removesuffix("-start") in REDUCTIONS:
            return
        names = " ".join(CALLED_LISTS.findall(attributes))
        for name in (*CALLED_ONCE.findall(attributes), *OPERAND.findall(names)):
            yield name, 1
        if body := BODY.search(attributes):
            yield body[1], self._rounds(attributes)

    def _rounds(self, attributes: str) -> int:
        """Returns the number of iterations of a loop, from its annotation or its condition.

        The condition is assumed to be that of `lax.scan`: step < length, counted from 0.
        """
        if annotated := TRIP_COUNT.search(attributes):
            return int(annotated[1])
        condition = self.computations.get(_required(CONDITION, attributes)[1], {})
        for compared in condition.values():
            if compared.opcode != "compare" or "direction=LT" not in compared.attributes:
                continue
            limit = condition.get(compared.operands[-1])
            number = limit and limit.opcode == "constant" and WHOLE_NUMBER.match(limit.attributes)
            if number:
                return int(number[1])
        return 1


def parse(text: str) -> Program:
    """Parses the HLO text that `compiled.as_text()` returns.

    Raises:
      ValueError: the text has no ENTRY computation.
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
        for dtype, shape in ARRAY.findall(LAYOUT.sub("", kind))
        if dtype in ITEM_BYTES
    )
    return Instruction(named[1], opcode, results, tuple(OPERAND.findall(rest[:end])), rest[end:])


def _required(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.search(text)
    if found is None:
        raise ValueError(f"the compiled program has an unknown form: {text[:300]}")
    return found


def _closing(text: str) -> int:
    """Returns the position after the bracket that closes the first character of the text."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position + 1
    return len(text)


# Opcodes that move no bytes, or whose computations are counted separately.
FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional")
)
WINDOW = re.compile(r"window=\{([^}]*)\}")
LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
CONTRACTING = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
FUSED = re.compile(r"calls=%?([\w.~-]+)")


def flops_in_later_rounds(program: Program) -> int:
    """Returns the operations of convolutions and dots in all loop iterations but the first."""
    later = {name: runs - 1 for name, runs in program.runs().items() if runs > 1}
    return sum(n * computation_flops(program.computations[name]) for name, n in later.items())


def bytes_in_later_rounds(program: Program) -> int:
    """Estimates the bytes read and written in all loop iterations but the first.

    An array whose first axis is as long as the number of iterations counts with one entry each.
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
    """Returns the floating-point operations of the convolutions and dots of a computation."""
    return sum(_flops(instruction, instructions) for instruction in instructions.values())


def _flops(instruction: Instruction, instructions: Mapping[str, Instruction]) -> int:
    if instruction.opcode not in ("convolution", "dot"):
        return 0
    given = [instructions[name].results[0] for name in instruction.operands]
    if instruction.opcode == "dot":
        axes = _required(CONTRACTING, instruction.attributes)[1]
        contracted = math.prod(given[0].shape[int(axis)] for axis in axes.split(",") if axis)
        return 2 * instruction.results[0].size * contracted
    return 2 * _convolution_products(given[0], given[1], instruction)


def _convolution_products(inputs: Array, kernel: Array, instruction: Instruction) -> int:
    """Returns the multiply-adds of a convolution, without those with padding."""
    labels = _required(LABELS, instruction.attributes).groups()
    lengths, taps, outputs = (
        dict(zip(names, array.shape, strict=True))
        for names, array in zip(labels, (inputs, kernel, instruction.results[0]), strict=True)
    )
    found = WINDOW.search(instruction.attributes)
    window = dict(item.split("=") for item in found[1].split()) if found else {}
    products = outputs["b"] * outputs["f"] * taps["i"]
    for axis in filter(str.isdigit, outputs):
        products *= _meetings(lengths[axis], taps[axis], outputs[axis], window, int(axis))
    return products


def _meetings(length: int, taps: int, outputs: int, window: Mapping[str, str], axis: int) -> int:
    """Counts, along one axis, the products of a kernel tap and an input that is not padding."""

    def setting(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    names = "stride", "rhs_dilate", "lhs_dilate"
    stride, rate, spread = (int(setting(name, "1")) for name in names)
    before = int(setting("pad", "0_0").split("_")[0])
    places = np.arange(outputs)[:, None] * stride - before + np.arange(taps) * rate
    inside = (places >= 0) & (places <= (length - 1) * spread)
    return int((inside & (places % spread == 0)).sum())


def _computation_bytes(instructions: Mapping[str, Instruction], rounds: int) -> int:
    def touched(array: Array) -> int:
        stacked = len(array.shape) > 1 and array.shape[0] == rounds
        return array.bytes // rounds if stacked else array.bytes

    total = 0
    for instruction in instructions.values():
        if instruction.opcode not in FREE:
            operands = [instructions[name] for name in instruction.operands if name in instructions]
            moved = (array for each in (instruction, *operands) for array in each.results)
            total += sum(map(touched, moved))
    return total
