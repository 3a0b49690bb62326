"""Implementations of atrous and depthwise convolutions on GPUs, in one table by rate.

Each entry is (largest rate, name of the implementation); the first whose rate is not exceeded
counts. `python -m experiments.gpu_suite --part=b` times the implementations (docs/benchmarks.md).
"""

import math

Choices = tuple[tuple[float, str], ...]

# `kernel_gradient.CANDIDATES`: the gradient of a dense kernel at stride 1.
KERNEL_GRADIENTS: Choices = ((1, "xla"), (math.inf, "products"))
# `depthwise.CANDIDATES`: a depthwise convolution and its gradients.
DEPTHWISE: Choices = ((1, "xla"), (math.inf, "shifted"))


def chosen(choices: Choices, rates: tuple[int, int]) -> str:
    """Returns the implementation for the larger of the rates of rows and columns."""
    return next(name for largest, name in choices if max(rates) <= largest)
