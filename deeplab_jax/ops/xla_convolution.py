"""The compiler's own convolution, dense or depthwise, and the padding of its transpose."""

import jax
from jax import lax

from deeplab_jax.ops.padding import Padding

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def xla_convolution(
    inputs: jax.Array,
    kernel: jax.Array,
    *,
    stride: int,
    rates: tuple[int, int],
    padding: Padding,
    groups: int = 1,
) -> jax.Array:
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
    inputs: tuple[int, int],
    outputs: tuple[int, int],
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
    return tuple(edges)
