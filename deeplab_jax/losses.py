"""Losses on logits: pure functions of arrays."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deeplab_jax.labels import IGNORE_LABEL


def valid_pixels(label: jax.Array) -> jax.Array:
    """Returns how many pixels are not void, as a float32 scalar; label: integer, any shape."""
    return jnp.sum(label != IGNORE_LABEL, dtype=jnp.float32)


def softmax_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
) -> jax.Array:
    """Returns −Σ w[label]·log softmax(logits)[label] over the non-void pixels, by their number.

    Args:
      logits: [N, H, W, C], floating point.
      label: [N, H, W], integer; 255 is void.
      normalizer: what to divide by instead, such as the pixels of a whole batch of which this is
        a part.
      class_weights: w, one a class; default all 1. The divisor stays the number of pixels, as in
        the released code, so weights should average about 1 over the pixels.

    Returns:
      A scalar; 0 where every pixel is void, with gradients of 0.

    Source: DeepLab v2, section 4.1; the mean over labelled pixels is the released code's.
    """
    valid = label != IGNORE_LABEL
    target = jnp.where(valid, label, 0).astype(jnp.int32)
    # A comparison instead of a gather: its gradient needs no scatter.
    chosen = target[..., None] == jnp.arange(logits.shape[-1])
    picked = jnp.sum(jnp.where(chosen, logits, 0), axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    if class_weights is not None:
        losses *= jnp.asarray(class_weights, losses.dtype)[target]
    total = jnp.sum(jnp.where(valid, losses, 0))
    count = valid_pixels(label) if normalizer is None else normalizer
    return total / jnp.maximum(count, 1).astype(total.dtype)
