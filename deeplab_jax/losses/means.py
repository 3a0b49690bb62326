"""How the losses of pixels, of classes and of parts of a batch are averaged."""

import jax
import jax.numpy as jnp

from deeplab_jax.losses.targets import valid_pixels


def pixel_mean(
    losses: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    num_classes: int | None = None,
) -> jax.Array:
    """Returns Σ losses by the number of non-void pixels, or by the normaliser.

    Args:
      losses: [N, H, W], 0 where the label is void.
      label, normalizer: as for `softmax_cross_entropy`.
      num_classes: see `known_pixels`.
    """
    total = jnp.sum(losses)
    count = valid_pixels(label, num_classes) if normalizer is None else normalizer
    return total / jnp.maximum(count, 1).astype(total.dtype)


def mean_of_counted(values: jax.Array, counted: jax.Array) -> jax.Array:
    """Returns the mean of the values that count, 0 where none does.

    Args:
      values: [n], such as one a class.
      counted: booleans [n], or one for all.
    """
    counted = jnp.broadcast_to(counted, values.shape)
    return jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(jnp.sum(counted), 1)


def share_of_batch(
    label: jax.Array, normalizer: jax.Array | None, num_classes: int
) -> jax.Array | float:
    """Returns by how much a part's own mean counts in its batch; 1 without a normaliser.

    For losses that are no sum over pixels. Over the parts of a batch these shares add up to 1.

    Args:
      label: of the part.
      normalizer: the pixels of the whole batch that are not void.
      num_classes: see `known_pixels`.
    """
    if normalizer is None:
        return 1.0
    return valid_pixels(label, num_classes) / jnp.maximum(normalizer, 1)
