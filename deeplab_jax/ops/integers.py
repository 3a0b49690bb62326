"""Convolution in 8-bit integers (arXiv 1712.05877, section 2)."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, Float32
from deeplab_jax.ops.convolution import convolution
from deeplab_jax.ops.depthwise import depthwise_convolution
from deeplab_jax.ops.dispatch import dispatch
from deeplab_jax.ops.xla_convolution import DIMENSIONS, Padding, Rate, rate_by_axis

# Of int8.
LEAST, GREATEST = -128, 127


def quantize(
    inputs: Float[Array, "*shape"], scale: jax.Array, zero_point: jax.Array
) -> Float32[Array, "*shape"]:
    """Returns the nearest levels: clip(round(x / scale) + zero_point), whole numbers in float32.

    Args:
      inputs: of any shape.
      scale: what one level is worth, > 0.
      zero_point: the level of 0, a whole number.
    """
    levels = jnp.round(inputs.astype(jnp.float32) / scale) + zero_point.astype(jnp.float32)
    return jnp.clip(levels, LEAST, GREATEST)


def integer_convolution(
    levels: Float32[Array, "N H W C"],
    zero_point: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    rate: Rate = 1,
    padding: Padding,
    depthwise: bool = False,
) -> Float32[Array, "N P Q D"]:
    """Returns Σ (level − zero_point) · kernel, as int8 arithmetic with int32 sums gives it.

    XLA has no fast integer convolution for CPUs: there the same whole numbers are multiplied and
    added in float32, which is exact while sums stay below 2^24 (518 products of the greatest).

    Args:
      levels: float32 [N, H, W, C], whole numbers -128..127.
      zero_point: int8 scalar, the level of 0; pads.
      kernel: int8 [k, k, C, D], or [k, k, 1, C] where `depthwise`.
      stride, rate, padding: see `convolution`.
      depthwise: each channel has its own kernel.

    Returns:
      float32 [N, H', W', D].
    """
    convolve = depthwise_convolution if depthwise else convolution

    def floats(levels: jax.Array, zero_point: jax.Array, kernel: jax.Array) -> jax.Array:
        inputs, weights = levels - zero_point.astype(jnp.float32), kernel.astype(jnp.float32)
        return convolve(inputs, weights, stride=stride, rate=rate, padding=padding)

    integers = partial(_integers, stride=stride, rate=rate, padding=padding, depthwise=depthwise)
    return dispatch(integers, floats, levels, zero_point, kernel)


def _integers(
    levels: Float32[Array, "N H W C"],
    zero_point: jax.Array,
    kernel: jax.Array,
    *,
    stride: int,
    rate: Rate,
    padding: Padding,
    depthwise: bool,
) -> Float32[Array, "N P Q D"]:
    """Padding has the level of 0, so zero points leave the sums as one constant a channel."""
    padded = lax.pad(
        levels.astype(jnp.int8),
        zero_point,
        ((0, 0, 0), *((*edge, 0) for edge in padding), (0,) * 3),
    )
    sums = lax.conv_general_dilated(
        padded,
        kernel,
        (stride, stride),
        "VALID",
        rhs_dilation=rate_by_axis(rate),
        dimension_numbers=DIMENSIONS,
        feature_group_count=levels.shape[-1] if depthwise else 1,
        preferred_element_type=jnp.int32,
    )
    constant = zero_point.astype(jnp.int32) * kernel.astype(jnp.int32).sum((0, 1, 2))
    return (sums - constant).astype(jnp.float32)
