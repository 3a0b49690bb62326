"""The average over a map."""

import jax
import jax.numpy as jnp

from deeplab_jax.ops.platform import named

# What it is called in portable programs.
MEAN_NAME = "mean_over_map"


def mean_over_map(inputs: jax.Array) -> jax.Array:
    """Returns each channel's mean.

    Args:
      inputs: [N, H, W, C], floating point.

    Returns:
      [N, 1, 1, C] in the dtype of the inputs.
    """
    return named(MEAN_NAME, lambda inputs: jnp.mean(inputs, (1, 2), keepdims=True), inputs)
