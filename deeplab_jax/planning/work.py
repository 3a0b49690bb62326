"""Arithmetic and memory traffic of a compiled program, with loops counted round by round.

XLA's own count takes a loop's body once, whatever the number of rounds.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from deeplab_jax.planning.hlo import Array, Instruction, Program

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

    Of an array whose first axis is as long as the loop, a round counts one entry.
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
