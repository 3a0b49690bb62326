"""Parser of compiled HLO text: computations, their instructions, and how often they run."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

# Bytes per element of an array, by its type in HLO text.
ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
}
HEADER = re.compile(r"^(ENTRY )?%?([\w.~-]+) \(.*\{$")
NAMED = re.compile(r"^\s+(?:ROOT )?%?([\w.~-]+) = ")
COMMENT = re.compile(r"/\*.*?\*/")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
# Number of the memory that contains an array, at the end of its layout. An array without this
# number is in the main memory.
SPACE = re.compile(r"S\((\d+)\)")
OPERAND = re.compile(r"%([\w.~-]+)")
TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CONDITION = re.compile(r"condition=%?([\w.~-]+)")
WHOLE_NUMBER = re.compile(r"^\((\d+)\)")
CALLED_ONCE = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation|condition)=%?([\w.~-]+)"
)
CALLED_LISTS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
FUSED = re.compile(r"calls=%?([\w.~-]+)")
BODY = re.compile(r"body=%?([\w.~-]+)")
# Opcodes whose `to_apply` computation runs on scalars and is not counted.
REDUCTIONS = ("all-reduce", "reduce", "reduce-scatter", "reduce-window", "scatter", "sort", "map")


class Array(NamedTuple):
    """Type, shape and memory of an array in a compiled program.

    Attributes:
      dtype: element type, such as `bf16`.
      shape: length of each axis.
      space: number of the memory that contains the array: 0 for the main memory (HBM), 1 for the
        on-chip vector memory of a TPU (VMEM), other numbers for scalars and flags.
    """

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

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
      attributes: text after the operands in the line of the instruction. For a constant, it
        starts with the value in parentheses. For a parameter, it starts with the number of the
        parameter in parentheses.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str


class Program(NamedTuple):
    """Compiled program.

    Attributes:
      computations: {name of a computation: {name of an instruction: parsed instruction}}.
      entry: name of the computation that runs first.
      roots: {name of a computation: name of the instruction that computes its result}.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str
    roots: dict[str, str]

    def runs(self) -> dict[str, int]:
        """Returns the number of executions of each computation, by name, in one run of the program.

        A loop with an unknown number of iterations is counted as one iteration. The condition of a
        loop and every branch of a conditional are counted as executed once. Computations that
        reductions, sorts and similar instructions apply to scalars are omitted.
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

    def fused(self) -> set[str]:
        """Returns the names of the computations that are the bodies of fusions."""
        return {
            called
            for instructions in self.computations.values()
            for instruction in instructions.values()
            if instruction.opcode == "fusion"
            for called in FUSED.findall(instruction.attributes)
        }

    def _called(self, instruction: Instruction) -> Iterator[tuple[str, int]]:
        """Yields (computation, number of calls) for the calls by an instruction; see `runs`."""
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

        The condition is assumed to be step < length, with steps counted from 0, as in `lax.scan`.
        If the number of iterations is unknown, the result is 1.

        Args:
          attributes: attributes of the `while` instruction of the loop.
        """
        if annotated := TRIP_COUNT.search(attributes):
            return int(annotated[1])
        condition = self.computations.get(required(CONDITION, attributes)[1], {})
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
    roots: dict[str, str] = {}
    entry, name = None, None
    for line in text.splitlines():
        header = HEADER.match(line)
        if header:
            name = header[2]
            computations[name] = {}
            entry = name if header[1] else entry
        elif name is not None and (instruction := _instruction(line)):
            computations[name][instruction.name] = instruction
            if line.lstrip().startswith("ROOT "):
                roots[name] = instruction.name
    if entry is None:
        raise ValueError("the compiled program's text has no ENTRY computation")
    return Program(computations, entry, roots)


def _instruction(line: str) -> Instruction | None:
    named = NAMED.match(line)
    if not named:
        return None
    rest = line[named.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest) if rest and opcode not in ("constant", "parameter") else 0
    results = tuple(
        _array(dtype, shape, layout)
        for dtype, shape, layout in ARRAY.findall(COMMENT.sub("", kind))
        if dtype in ITEM_BYTES
    )
    return Instruction(named[1], opcode, results, tuple(OPERAND.findall(rest[:end])), rest[end:])


def _array(dtype: str, shape: str, layout: str) -> Array:
    space = SPACE.search(layout)
    lengths = tuple(int(length) for length in shape.split(",") if length)
    return Array(dtype, lengths, int(space[1]) if space else 0)


def required(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    """Returns the match of a pattern in the text of a program.

    Raises:
      ValueError: the text does not contain the pattern.
    """
    found = pattern.search(text)
    if found is None:
        raise ValueError(f"the compiled program has an unknown form: {text[:300]}")
    return found


def _closing(text: str) -> int:
    """Returns the position after the bracket that closes the first bracket of a text.

    Args:
      text: text that starts with `(`.
    """
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position + 1
    return len(text)
