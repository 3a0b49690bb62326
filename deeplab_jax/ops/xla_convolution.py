"""The compiler's own convolution, and the paddings that DeepLab implementations use."""

from collections.abc import Sequence
from typing import Any

from jax import lax

from deeplab_jax.arrays import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
# An atrous rate: one number for both axes, or rows and columns apart.
Rate = int | tuple[int, int]
# (H, W) in pixels; a side that `jax.export` leaves open is a symbol.
Size = Sequence[int | Any]


def rate_by_axis(rate: Rate) -> tuple[int, int]:
    """Returns the rate along H and along W."""
    return (rate, rate) if isinstance(rate, int) else (rate[0], rate[1])


def symmetric_padding(kernel_size: int, rate: Rate) -> Padding:
    """Returns the padding that keeps the size at stride 1, whatever the stride.

    A strided convolution with it equals the stride-1 convolution subsampled: what slim's ResNet and
    Xception do, and what atrous consistency needs.
    """
    rows, columns = ((kernel_size - 1) * along for along in rate_by_axis(rate))
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def same_padding(size: Size, kernel_size: int, stride: int, rate: Rate) -> Padding:
    """Returns TensorFlow's `SAME` padding for a map of `size` (H, W), as MobileNets use it.

    Equals `symmetric_padding` on odd sizes; on even sizes with stride 2 it lies one pixel off.
    """

    def one_axis(length: int, along: int) -> tuple[int, int]:
        output = -(-length // stride)
        total = max((output - 1) * stride + (kernel_size - 1) * along + 1 - length, 0)
        return total // 2, total - total // 2

    rows, columns = map(one_axis, size, rate_by_axis(rate))
    return rows, columns


DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def xla_convolution(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k l I D"],
    *,
    stride: int,
    rates: tuple[int, int],
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "N P Q D"]:
    """Returns the convolution as XLA has it.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C / groups, D].
      stride: distance in pixels between outputs.
      rates: atrous rates of rows and columns.
      padding: zeros before and after H and W.
      groups: of channels; C for a depthwise convolution.

    Returns:
      [N, H', W', D] in the dtype of the inputs.
    """
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=rates,
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


def transposed_padding(
    kernel_size: int,
    rates: tuple[int, int],
    padding: Padding,
    inputs: Size,
    outputs: Size,
    stride: int = 1,
) -> Padding:
    """Returns the zeros around a cotangent whose convolution gives the inputs' gradient.

    Args:
      kernel_size, rates, padding, stride: of the convolution.
      inputs, outputs: its (H, W) and (H', W') in pixels.

    Returns:
      Zeros before and after H' and W', which `stride` has spread out; negative where pixels go.
    """
    edges = []
    for (before, _), length, number, rate in zip(padding, inputs, outputs, rates, strict=True):
        reach = (kernel_size - 1) * rate
        first = reach - before
        edges.append((first, length + reach - first - (number - 1) * stride - 1))
    rows, columns = edges
    return rows, columns
