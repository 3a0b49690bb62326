"""A compiled program's text, as XLA prints it, read into computations and instructions."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

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

        A loop whose number of rounds cannot be told counts as one round; of a choice every branch
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
