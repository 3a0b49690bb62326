"""Convolution in 8-bit integers (arXiv 1712.05877, section 2)."""

from functools import partial

import jax
import jax.numpy as jnp

from deeplab_jax.arrays import Array, Float, Float32
from deeplab_jax.ops.convolution import convolution
from deeplab_jax.ops.depthwise import depthwise_convolution
from deeplab_jax.ops.dispatch import dispatch
from deeplab_jax.ops.xla_convolution import NO_PADDING, Padding, Rate, Window, pad, xla_convolution

# Smallest and largest value of int8.
LEAST, GREATEST = -128, 127


def quantize(
    inputs: Float[Array, "*shape"], scale: jax.Array, zero_point: jax.Array
) -> Float32[Array, "*shape"]:
    """Quantizes values to 8-bit levels: clip(round(x / scale) + zero_point, −128, 127).

    Args:
      inputs: floating point, of any shape.
      scale: difference between the values of two neighboring levels, above 0.
      zero_point: level that represents the value 0, a whole number.

    Returns:
      Levels, whole numbers in float32.
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
    groups: int = 1,
) -> Float32[Array, "N P Q D"]:
    """Computes the convolution of (levels − zero_point) with an int8 kernel, with int32 sums.

    XLA has no fast integer convolution for CPUs. On CPUs, the same whole numbers are therefore
    multiplied and added in float32, which is exact while the sums are below 2^24.

    Args:
      levels: float32 [N, H, W, C], whole numbers −128..127.
      zero_point: int8 scalar, the level that represents the value 0; the padding has this level.
      kernel: int8 [k, k, C / groups, D].
      stride: distance between neighboring outputs, in input pixels.
      rate: atrous rate, the distance between neighboring taps in input pixels; may be a pair (along
        H, along W).
      padding: numbers of values around the map: ((top, bottom), (left, right)).
      groups: number of channel groups; C for a depthwise convolution.

    Returns:
      float32 [N, P, Q, D].
    """

    def floats(levels: jax.Array, zero_point: jax.Array, kernel: jax.Array) -> jax.Array:
        depthwise = groups == levels.shape[-1] == kernel.shape[-1]
        convolve = depthwise_convolution if depthwise else partial(convolution, groups=groups)
        inputs, weights = levels - zero_point.astype(jnp.float32), kernel.astype(jnp.float32)
        return convolve(inputs, weights, stride=stride, rate=rate, padding=padding)

    window = Window.of(kernel, stride, rate, padding)
    integers = partial(_integers, window=window, groups=groups)
    return dispatch(integers, floats, levels, zero_point, kernel)


def _integers(
    levels: Float32[Array, "N H W C"],
    zero_point: jax.Array,
    kernel: jax.Array,
    window: Window,
    groups: int,
) -> Float32[Array, "N P Q D"]:
    """Computes `integer_convolution` with int8 operands.

    The zero point is not subtracted before the convolution. Because the padding has the level
    `zero_point`, the zero point contributes the same constant to all sums of an output channel.
    This constant is subtracted after the convolution.
    """
    padded = pad(levels.astype(jnp.int8), window.padding, zero_point)
    window = window._replace(padding=NO_PADDING)
    sums = xla_convolution(padded, kernel, window, groups, accumulator=jnp.int32)
    constant = zero_point.astype(jnp.int32) * kernel.astype(jnp.int32).sum((0, 1, 2))
    return (sums - constant).astype(jnp.float32)
