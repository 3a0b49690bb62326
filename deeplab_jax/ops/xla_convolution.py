"""XLA's convolution, convolution windows, and the paddings of the DeepLab implementations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from deeplab_jax.arrays import Array, Float, Num

Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))
# Atrous rate: one number for both axes, or a pair (along H, along W).
Rate = int | tuple[int, int]
# (H, W) in pixels; each may be a symbolic dimension of `jax.export`.
Size = Sequence[int | Any]
# Operands and outputs of a convolution.
Inputs = Float[Array, "N H W C"]
Kernel = Float[Array, "k k C D"]
ChannelKernel = Float[Array, "k k 1 C"]
# With I = C / groups input channels per group.
GroupedKernel = Float[Array, "k k I D"]
Outputs = Float[Array, "N P Q D"]


def rate_by_axis(rate: Rate) -> tuple[int, int]:
    """Returns the atrous rate as a pair (along H, along W)."""
    return (rate, rate) if isinstance(rate, int) else (rate[0], rate[1])


class Window(NamedTuple):
    """Geometry of a convolution with a square kernel.

    Attributes:
      size: number of taps along each side of the kernel.
      rates: atrous rates along H and W: distances between neighboring taps, in input pixels.
      padding: numbers of zeros around the map: ((top, bottom), (left, right)).
      stride: distance between neighboring outputs, in input pixels.
    """

    size: int
    rates: tuple[int, int]
    padding: Padding
    stride: int = 1

    @classmethod
    def of(cls, kernel: jax.Array, stride: int, rate: Rate, padding: Padding) -> "Window":
        """Returns the window of a convolution with a kernel [k, k, C, D]."""
        return cls(kernel.shape[0], rate_by_axis(rate), padding, stride)

    def outputs(self, size: Size) -> tuple[int, int]:
        """Returns the output size (P, Q) for the input size (H, W)."""
        height, width = (
            (length + sum(edge) - (self.size - 1) * rate - 1) // self.stride + 1
            for length, rate, edge in zip(size, self.rates, self.padding, strict=True)
        )
        return height, width

    def transposed_padding(self, inputs: Size, outputs: Size) -> Padding:
        """Returns the padding with which a convolution computes the gradient of the inputs.

        This convolution applies the mirrored kernel to the cotangent of the outputs. `stride` − 1
        zeros are inserted between neighboring pixels of the cotangent before it is padded.

        Args:
          inputs: input size (H, W).
          outputs: output size (P, Q).

        Returns:
          Numbers of zeros around the cotangent: ((top, bottom), (left, right)); a negative number
          cuts pixels off.
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
    """Returns the padding with which a convolution at stride 1 keeps the size of its input.

    With this padding, a strided convolution is equal to the convolution at stride 1 followed by
    subsampling, as in slim's ResNet and Xception. Replacing strides by atrous rates requires this
    property.
    """
    rows, columns = ((kernel_size - 1) * along for along in rate_by_axis(rate))
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def same_padding(size: Size, kernel_size: int, stride: int, rate: Rate) -> Padding:
    """Returns the padding of TensorFlow's `SAME` for an input of `size` (H, W), as in MobileNets.

    At stride 1, and at stride 2 along an axis of odd length, this padding is equal to
    `symmetric_padding`. At stride 2 along an axis of even length, it has one zero less at the top
    or left than `symmetric_padding`, if the kernel size is odd and above 1.
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
    """Pads maps along H and W.

    Args:
      maps: [N, H, W, C], any dtype.
      edges: numbers of values to add: ((top, bottom), (left, right)); a negative number cuts pixels
        off.
      value: value to pad with (default: 0).
      between: number of values to insert between neighboring pixels (default: 0).
    """
    sides = [(before, after, between) for before, after in edges]
    return lax.pad(maps, jnp.asarray(value, maps.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def place(maps: Num[Array, "N H W C"], start: Sequence[int], size: Size) -> Num[Array, "N P Q C"]:
    """Copies maps into larger or smaller maps of zeros; pixels outside the result are cut off.

    Args:
      maps: [N, H, W, C], any dtype.
      start: (row, column) in the result of the top left pixel of `maps`; may be negative.
      size: (P, Q) of the result.

    Returns:
      [N, P, Q, C].
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
    """Computes a convolution with `jax.lax.conv_general_dilated`.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C / groups, D].
      window: kernel size, rates, padding and stride of the convolution.
      groups: number of channel groups; C for a depthwise convolution.
      accumulator: dtype of the sums and of the result (default: that of the inputs).

    Returns:
      [N, P, Q, D].
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
