"""Dice loss: the overlap of each class, however few pixels it has."""

import jax
import jax.numpy as jnp

from deeplab_jax.losses.means import mean_of_counted, share_of_batch
from deeplab_jax.losses.targets import (
    at_least_float32,
    check_label,
    class_shares,
    known_pixels,
)


def dice_loss(
    logits: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    *,
    smooth: float = 1.0,
    present_only: bool = True,
) -> jax.Array:
    """Returns 1 − the mean over classes of (2·Σ p·t + s)/(Σ p + Σ t + s).

    p is the softmax of the logits, t the label's share of the class; sums are over the non-void
    pixels of the batch.

    Args:
      logits, label: as for `softmax_cross_entropy`.
      normalizer: the pixels of a whole batch of which this is a part. Overlaps are of the part,
        and the part counts by its own pixels.
      smooth: s, in pixels. Above 0 a class that the label does not hold still pushes p down.
      present_only: whether classes that the label does not hold are left out.

    Returns:
      A scalar, 0..1; 0 where every pixel is void, with gradients of 0.

    Source: arXiv 1606.04797, section 3, with plain sums in the denominator.
    """
    check_label(logits, label)
    known = known_pixels(label, logits.shape[-1])[..., None]
    probability = jnp.where(known, jax.nn.softmax(at_least_float32(logits)), 0)
    truth = class_shares(label, logits.shape[-1])
    pixels = tuple(range(truth.ndim - 1))
    true, predicted = truth.sum(pixels), probability.sum(pixels)
    overlap = 2 * (probability * truth).sum(pixels) + smooth
    size = true + predicted + smooth
    # Without smoothing, a class that neither side holds is met.
    distance = jnp.where(size > 0, 1 - overlap / jnp.where(size > 0, size, 1), 0)
    counted = (true > 0) if present_only else jnp.any(known)
    share = share_of_batch(label, normalizer, logits.shape[-1])
    return share * mean_of_counted(distance, counted)
