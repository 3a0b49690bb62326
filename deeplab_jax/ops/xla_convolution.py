"""XLA's own convolution, the window that it takes, and the paddings of DeepLab implementations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from deeplab_jax.arrays import Array, Float, Num

Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))
# An atrous rate: one number for both axes, or one for rows and one for columns.
Rate = int | tuple[int, int]
# (H, W) in pixels; a side that `jax.export` leaves open is a symbol.
Size = Sequence[int | Any]
# Operands and outputs of a convolution.
Inputs = Float[Array, "N H W C"]
Kernel = Float[Array, "k k C D"]
ChannelKernel = Float[Array, "k k 1 C"]
Outputs = Float[Array, "N P Q D"]


def rate_by_axis(rate: Rate) -> tuple[int, int]:
    """Returns the rate along H and along W."""
    return (rate, rate) if isinstance(rate, int) else (rate[0], rate[1])


class Window(NamedTuple):
    """Positions of a square kernel's taps and of its outputs.

    Attributes:
      size: number of taps along each side.
      rates: atrous rates along H and along W, the distance in pixels between taps.
      padding: number of zeros before and after H and W.
      stride: distance in pixels between outputs.
    """

    size: int
    rates: tuple[int, int]
    padding: Padding
    stride: int = 1

    @classmethod
    def of(cls, kernel: jax.Array, stride: int, rate: Rate, padding: Padding) -> "Window":
        """Returns the window of a kernel [k, k, C, D]."""
        return cls(kernel.shape[0], rate_by_axis(rate), padding, stride)

    def outputs(self, size: Size) -> tuple[int, int]:
        """Returns the size (H', W') of the outputs for inputs of `size` (H, W)."""
        height, width = (
            (length + sum(edge) - (self.size - 1) * rate - 1) // self.stride + 1
            for length, rate, edge in zip(size, self.rates, self.padding, strict=True)
        )
        return height, width

    def transposed_padding(self, inputs: Size, outputs: Size) -> Padding:
        """Returns the padding of a cotangent whose convolution gives the inputs' gradient.

        Args:
          inputs: (H, W) in pixels.
          outputs: (H', W') in pixels.

        Returns:
          Number of zeros before and after H' and W', which `stride` has spread out; negative where
          pixels are cut off.
        """
        edges = []
        for length, number, rate, (before, _) in zip(
            inputs, outputs, self.rates, self.padding, strict=True
        ):
            first = (self.size - 1) * rate - before
            edges.append((first, length + before - (number - 1) * self.stride - 1))
        rows, columns = edges
        return rows, columns


def symmetric_padding(kernel_size: int, rate: Rate) -> Padding:
    """Returns the padding that keeps the size at stride 1, whatever the stride.

    A strided convolution with it equals the stride-1 convolution subsampled: what slim's ResNet and
    Xception do, and what atrous consistency needs.
    """
    rows, columns = ((kernel_size - 1) * along for along in rate_by_axis(rate))
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def same_padding(size: Size, kernel_size: int, stride: int, rate: Rate) -> Padding:
    """Returns TensorFlow's `SAME` padding for a map of `size` (H, W), as MobileNets use it.

    It equals `symmetric_padding` on odd sizes; on even sizes with stride 2 it is one pixel off.
    """

    def one_axis(length: int, along: int) -> tuple[int, int]:
        output = -(-length // stride)
        total = max((output - 1) * stride + (kernel_size - 1) * along + 1 - length, 0)
        return total // 2, total - total // 2

    rows, columns = map(one_axis, size, rate_by_axis(rate))
    return rows, columns


def pad(
    maps: Num[Array, "N H W C"], edges: Sequence[tuple[int, int]], value: Any = 0, between: int = 0
) -> Num[Array, "N P Q C"]:
    """Returns maps padded along H and W.

    Args:
      maps: arrays of any dtype.
      edges: number of values before and after H and W; a negative number cuts pixels off.
      value: scalar to pad with.
      between: number of values between neighboring pixels (default: 0).
    """
    sides = [(before, after, between) for before, after in edges]
    return lax.pad(maps, jnp.asarray(value, maps.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def place(maps: Num[Array, "N H W C"], start: Sequence[int], size: Size) -> Num[Array, "N P Q C"]:
    """Returns maps of `size` (H, W) that hold `maps` from `start` (row, column) on.

    Pixels outside of the given maps are zero; pixels outside of `size` are cut off.
    """
    sides = zip(start, size, maps.shape[1:3], strict=True)
    return pad(maps, [(first, side - length - first) for first, side, length in sides])


def xla_convolution(
    inputs: Num[Array, "N H W C"],
    kernel: Num[Array, "k k I D"],
    window: Window,
    groups: int = 1,
    accumulator: DTypeLike | None = None,
) -> Num[Array, "N P Q D"]:
    """Returns the convolution as XLA computes it.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C / groups, D].
      window: see `Window`.
      groups: number of groups of channels; C for a depthwise convolution.
      accumulator: dtype of the sums and of the result (default: that of the inputs).

    Returns:
      [N, H', W', D].
    """
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (window.stride, window.stride),
        window.padding,
        rhs_dilation=window.rates,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        preferred_element_type=accumulator,
    )
