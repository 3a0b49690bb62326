"""Functions that combine all channels of a pixel, and the GELU between them."""

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import named

# Names of the functions in exported programs.
CHANNEL_MEAN_NAME = "mean_over_channels"
NORM_NAME = "norm_over_map"
GELU_NAME = "gelu"


def gelu(inputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes the exact GELU, x·Φ(x) with the normal distribution Φ (arXiv 1606.08415).

    Args:
      inputs: floating point, of any shape.
    """
    return named(GELU_NAME, _gelu, inputs)


def _gelu(inputs: jax.Array) -> jax.Array:
    return 0.5 * inputs * (1 + jax.lax.erf(inputs * jnp.asarray(0.5**0.5, inputs.dtype)))


def standardize_channels(
    inputs: Float[Array, "N H W C"], epsilon: float
) -> Float[Array, "N H W C"]:
    """Scales the channels of each pixel to mean 0 and variance 1.

    Args:
      inputs: [N, H, W, C], floating point.
      epsilon: constant added to the variance.

    Returns:
      [N, H, W, C] in the dtype of the inputs.
    """
    centered = inputs - _channel_mean(inputs)
    return centered * jax.lax.rsqrt(_channel_mean(centered * centered) + epsilon)


def relative_norms(inputs: Float[Array, "N H W C"], epsilon: float) -> Float[Array, "N 1 1 C"]:
    """Returns the L2 norm of each channel over the map, divided by the mean over the channels.

    Args:
      inputs: [N, H, W, C], floating point.
      epsilon: constant added to the mean.

    Returns:
      [N, 1, 1, C] in the dtype of the inputs.
    """
    norms = named(NORM_NAME, _norm_over_map, inputs)
    return norms / (_channel_mean(norms) + epsilon)


def _norm_over_map(inputs: jax.Array) -> jax.Array:
    squares = jnp.sum(inputs * inputs, (1, 2), keepdims=True)
    # The gradient of the root is infinite at 0, which only a channel without any response has.
    return jnp.sqrt(jnp.maximum(squares, np.finfo(inputs.dtype).tiny))


def _channel_mean(inputs: jax.Array) -> jax.Array:
    return named(CHANNEL_MEAN_NAME, lambda maps: jnp.mean(maps, -1, keepdims=True), inputs)
