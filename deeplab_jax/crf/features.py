"""Where pixels lie in the space of a kernel, in its standard deviations."""

import jax
import jax.numpy as jnp
from jax import lax


def position_features(size: tuple[int, int], std: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns [2, H·W]: x and y by the deviation; size: (H, W), std in pixels."""
    row, column = (lax.broadcasted_iota(jnp.int32, size, axis) for axis in (0, 1))
    return jnp.stack([column, row]).reshape(2, -1).astype(dtype) / std


def bilateral_features(
    image: jax.Array, position_std: jax.Array, color_std: jax.Array, dtype: jnp.dtype
) -> jax.Array:
    """Returns [5, H·W]: x, y, red, green and blue by their deviations.

    Args:
      image: uint8 [H, W, 3].
      position_std: in pixels.
      color_std: in levels of 0..255.
      dtype: of the result.
    """
    position = position_features(image.shape[:2], position_std, dtype)
    color = jnp.moveaxis(image, -1, 0).reshape(3, -1).astype(dtype) / color_std
    return jnp.concatenate([position, color])
