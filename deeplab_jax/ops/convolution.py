"""Dense convolution, atrous or not."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.ops.padding import Padding, Rate, rate_by_axis
from deeplab_jax.ops.platform import by_platform, traced_once
from deeplab_jax.ops.valid_region import LARGEST_SHARE, sum_over_taps, valid_share

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@traced_once
def convolution(
    inputs: jax.Array, kernel: jax.Array, *, stride: int = 1, rate: Rate = 1, padding: Padding
) -> jax.Array:
    """Returns the convolution whose kernel taps lie `rate` pixels apart.

    y[i] = Σ_k x[i·stride + k·rate]·w[k] (DeepLab v2, eq. 1; a correlation, as everywhere in the
    field). The holes are in the kernel; the input keeps all its pixels.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C, D].
      stride: distance in pixels between outputs.
      rate: atrous rate, the distance in pixels between taps; a pair for rows and columns.
      padding: zeros before and after H and W.

    Returns:
      [N, H', W', D] in the dtype of the inputs.
    """

    def plain(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            inputs,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=rate_by_axis(rate),
            dimension_numbers=DIMENSIONS,
        )

    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return by_platform(plain, lambda x, k: _pointwise(x, k, stride), inputs, kernel)
    rates = rate_by_axis(rate)
    # Export may leave sizes open: they are symbols then, and no share can be computed.
    known = all(isinstance(side, int) for side in inputs.shape[1:3])
    if known and stride == 1 and max(rates) > 1:
        share = valid_share(inputs.shape[1:3], kernel.shape[0], rates, padding)
        if share <= LARGEST_SHARE:
            over_taps = partial(sum_over_taps, rates=rates, padding=padding)
            return by_platform(plain, over_taps, inputs, kernel)
    return plain(inputs, kernel)


def _pointwise(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A 1×1 convolution as a matrix product: XLA's CPU gradients are 5 to 10 times slower."""
    inputs = inputs[:, ::stride, ::stride]
    flat = inputs.reshape(-1, inputs.shape[-1])
    return jnp.dot(flat, kernel[0, 0]).reshape(*inputs.shape[:-1], kernel.shape[-1])
