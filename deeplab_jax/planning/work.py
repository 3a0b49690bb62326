"""Work of a compiled program on one chip: operations, bytes moved, and kernels by kind.

The work is computed from the HLO text. XLA's own cost analysis is not used: it counts the body of a
loop only once, counts arrays in the on-chip memory of a TPU as memory traffic, includes elementwise
operations, and is not available for GPUs.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from deeplab_jax.planning.hlo import FUSED, Array, Instruction, Program, required

# Numbers of the memories in HLO text: the main memory (HBM), and the vector memory of a TPU (VMEM).
MAIN_MEMORY, VECTOR_MEMORY = 0, 1
# Opcodes that move no bytes, or whose computations are counted separately.
FREE = frozenset(
    (
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "partition-id",
        "optimization-barrier",
    )
)
SLICES = ("dynamic-slice", "slice", "gather")
WINDOW = re.compile(r"window=\{([^}]*)\}")
LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
CONTRACTING = re.compile(r"lhs_contracting_dim(?:s=\{|ensions\":\[)([\d,\"]*)")
NUMBER = re.compile(r"\((\d+)\)")
TARGET = re.compile(r'custom_call_target="([^"]*)"')
# Kinds of the kernels of NVIDIA's libraries, by the target of the custom call.
LIBRARY_KERNELS = {
    "__cudnn$convForward": "convolution",
    "__cudnn$convForwardGraph": "convolution",
    "__cudnn$convBiasActivationForward": "convolution",
    "__cudnn$convBackwardInput": "input gradient",
    "__cudnn$convBackwardFilter": "kernel gradient",
    "__cublas$gemm": "matrix product",
    "__cublas$lt$matmul": "matrix product",
}
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "send",
    "recv",
)
# A fusion with only these opcodes changes the layout of arrays and computes nothing.
MOVES = frozenset(("copy", "transpose", "bitcast", "reshape", "parameter", "tuple"))


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Kernels of one kind in a step.

    Attributes:
      count: number of executions.
      flops: operations of convolutions and matrix products.
      bytes: bytes read from and written to the main memory.
    """

    count: int
    flops: int
    bytes: int


def executed(program: Program) -> Iterator[tuple[Instruction, Mapping[str, Instruction], int]]:
    """Yields each instruction outside of fusions, its computation, and its number of executions."""
    fused = program.fused()
    for name, times in program.runs().items():
        if name not in fused:
            computation = program.computations[name]
            for instruction in computation.values():
                yield instruction, computation, times


def total_flops(program: Program) -> int:
    """Returns the number of operations of all convolutions and matrix products of a program.

    Operations are multiplications and additions, each counted as one. Operations in loops count
    once per iteration.
    """
    return sum(
        times * computation_flops(program.computations[name])
        for name, times in program.runs().items()
    )


def memory_traffic(program: Program) -> dict[int, int]:
    """Returns {memory number: bytes that a program reads from and writes to this memory}.

    Memory 0 is the main memory (HBM), and memory 1 the on-chip vector memory of a TPU (VMEM).
    Instructions in loops count once per iteration. An instruction reads its operands and writes its
    results once. A fusion that takes a slice of an operand reads only the slice. A fusion that
    updates a slice of an operand writes only the slice.
    """
    moved: Counter[int] = Counter()
    for instruction, computation, times in executed(program):
        for space, size in _moved(program, instruction, computation):
            moved[space] += times * size
    return dict(moved)


def kernels(program: Program) -> dict[str, Kernels]:
    """Returns the kernels of a GPU program by kind, in descending order of bytes.

    A fusion is one kernel. Every instruction outside of fusions is also a kernel, unless it moves
    no bytes. The kinds are convolutions, their input and kernel gradients, matrix products, layout
    changes, collectives, reductions, elementwise kernels (with or without a layout change) and
    other library kernels.
    """
    found: dict[str, Kernels] = {}
    for instruction, computation, times in executed(program):
        sizes = _moved(program, instruction, computation)
        if not sizes:
            continue
        kind = _kind(program, instruction)
        flops = _kernel_flops(program, instruction, computation)
        before = found.get(kind, Kernels(0, 0, 0))
        moved = sum(size for space, size in sizes if space == MAIN_MEMORY)
        found[kind] = Kernels(
            before.count + times, before.flops + times * flops, before.bytes + times * moved
        )
    return dict(sorted(found.items(), key=lambda item: -item[1].bytes))


def _kind(program: Program, instruction: Instruction) -> str:
    opcode = instruction.opcode.removesuffix("-start")
    if opcode == "custom-call":
        target = TARGET.search(instruction.attributes)
        return LIBRARY_KERNELS.get(target[1] if target else "", "other")
    if opcode in COLLECTIVES:
        return "collective"
    opcodes = {opcode}
    if opcode == "fusion":
        name = required(FUSED, instruction.attributes)[1]
        opcodes = {each.opcode for each in program.computations[name].values()}
    if opcodes & {"convolution", "dot"}:
        return "convolution" if "convolution" in opcodes else "matrix product"
    if opcodes <= MOVES:
        return "layout change"
    if opcodes & {"reduce", "reduce-window"}:
        return "reduction"
    return "elementwise and layout change" if "transpose" in opcodes else "elementwise"


def _moved(
    program: Program, instruction: Instruction, computation: Mapping[str, Instruction]
) -> list[tuple[int, int]]:
    """Returns a pair (memory number, bytes) for each array that an instruction reads or writes.

    The memory numbers are those of `memory_traffic`.
    """
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith(("-done", "-update")) or opcode == "async-start":
        return []
    operands = [computation[name].results for name in instruction.operands if name in computation]
    results = instruction.results
    if opcode == "fusion":
        called = required(FUSED, instruction.attributes)[1]
        read = _reads(program.computations[called])
        sizes = [
            (array.space, min(array.bytes, read.get(number, array.bytes)))
            for number, arrays in enumerate(operands)
            for array in arrays
        ]
        return sizes + _writes(program, called, results)
    if opcode in SLICES:
        operands = [results]
    elif opcode == "dynamic-update-slice":
        operands, results = operands[1:2], operands[1]
    elif opcode == "copy-start" or TARGET.search(instruction.attributes):
        # The other results are the source of the copy, or the workspace of the library.
        results = results[:1]
    elif opcode.endswith("-start"):
        # The operands, which are also results, are not written.
        results = results[len(operands) :] or results
    return [(array.space, array.bytes) for arrays in (*operands, results) for array in arrays]


def _reads(fused: Mapping[str, Instruction]) -> dict[int, int]:
    """Returns {parameter number: bytes read} for parameters of which a fusion uses only slices."""
    users: dict[str, list[Instruction]] = {}
    for instruction in fused.values():
        for name in instruction.operands:
            users.setdefault(name, []).append(instruction)
    read = {}
    for name, instruction in fused.items():
        taking = users.get(name, [])
        if instruction.opcode == "parameter" and taking and all(_takes(u, name) for u in taking):
            number = int(required(NUMBER, instruction.attributes)[1])
            read[number] = sum(u.results[0].bytes for u in taking if u.opcode in SLICES)
    return read


def _takes(user: Instruction, name: str) -> bool:
    """Returns whether the instruction `user` reads or updates only a slice of the array `name`."""
    return user.operands[0] == name and user.opcode in (*SLICES, "dynamic-update-slice")


def _writes(program: Program, called: str, results: tuple[Array, ...]) -> list[tuple[int, int]]:
    fused = program.computations[called]
    root = fused.get(program.roots.get(called, ""))
    parts = [root] if root and root.opcode != "tuple" else []
    if root and root.opcode == "tuple":
        parts = [fused[name] for name in root.operands]
    sizes = []
    for number, array in enumerate(results):
        part = parts[number] if number < len(parts) else None
        updated = part is not None and part.opcode == "dynamic-update-slice"
        source = fused[part.operands[1]].results[0] if part and updated else array
        sizes.append((array.space, source.bytes))
    return sizes


def _kernel_flops(
    program: Program, instruction: Instruction, computation: Mapping[str, Instruction]
) -> int:
    if instruction.opcode == "fusion":
        called = required(FUSED, instruction.attributes)[1]
        return computation_flops(program.computations[called])
    return _flops(instruction, computation)


def computation_flops(instructions: Mapping[str, Instruction]) -> int:
    """Returns the number of operations of the convolutions and matrix products of a computation."""
    return sum(_flops(instruction, instructions) for instruction in instructions.values())


def _flops(instruction: Instruction, instructions: Mapping[str, Instruction]) -> int:
    kind = instruction.opcode
    if kind == "custom-call":
        target = TARGET.search(instruction.attributes)
        kind = LIBRARY_KERNELS.get(target[1] if target else "", "other")
    if kind not in ("convolution", "input gradient", "kernel gradient", "matrix product", "dot"):
        return 0
    given = [instructions[name].results[0] for name in instruction.operands]
    result = instruction.results[0]
    if kind in ("dot", "matrix product"):
        axes = required(CONTRACTING, instruction.attributes)[1].replace('"', "")
        contracted = math.prod(given[0].shape[int(axis)] for axis in axes.split(",") if axis)
        return 2 * result.size * contracted
    # cuDNN describes a gradient by the window of the forward convolution.
    inputs, kernel, outputs = {
        "convolution": (given[0], given[1], result),
        "input gradient": (result, given[1], given[0]),
        "kernel gradient": (given[0], result, given[1]),
    }[kind]
    return 2 * _convolution_products(inputs, kernel, outputs, instruction.attributes)


def _convolution_products(inputs: Array, kernel: Array, outputs: Array, attributes: str) -> int:
    """Counts the multiply-adds of a convolution with input pixels.

    Multiply-adds with padding, or with zeros between dilated input pixels, are not counted.
    """
    labels = required(LABELS, attributes).groups()
    lengths, taps, results = (
        dict(zip(names, array.shape, strict=True))
        for names, array in zip(labels, (inputs, kernel, outputs), strict=True)
    )
    found = WINDOW.search(attributes)
    window = dict(item.split("=") for item in found[1].split()) if found else {}
    products = results["b"] * results["f"] * taps["i"]
    for axis in filter(str.isdigit, results):
        products *= _taps_inside(lengths[axis], taps[axis], results[axis], window, int(axis))
    return products


def _taps_inside(length: int, taps: int, outputs: int, window: Mapping[str, str], axis: int) -> int:
    """Counts the pairs (output, kernel tap) along one axis in which the tap is on an input pixel.

    The tap of any other pair is on padding, or on a zero between dilated input pixels.
    """

    def setting(name: str, default: str) -> str:
        return window[name].split("x")[axis] if name in window else default

    names = "stride", "rhs_dilate", "lhs_dilate"
    stride, rate, spread = (int(setting(name, "1")) for name in names)
    before = int(setting("pad", "0_0").split("_")[0])
    places = np.arange(outputs)[:, None] * stride - before + np.arange(taps) * rate
    inside = (places >= 0) & (places <= (length - 1) * spread)
    return int((inside & (places % spread == 0)).sum())
