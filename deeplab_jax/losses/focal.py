"""Focal loss: cross-entropy that pays less to what is already right."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deeplab_jax.losses.cross_entropy import log_softmax, pixel_cross_entropy
from deeplab_jax.losses.means import pixel_mean
from deeplab_jax.losses.targets import as_weights, check_label, class_shares, is_soft


def focal_loss(
    logits: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    *,
    gamma: float = 2.0,
    alpha: Sequence[float] | None = None,
) -> jax.Array:
    """Returns −Σ α[label]·(1 − p[label])^γ·log p[label] over the non-void pixels, by their number.

    p is the softmax of the logits. γ = 0 is the cross-entropy with class weights α.

    Args:
      logits, label, normalizer: as for `softmax_cross_entropy`. The loss of a soft label is that
        of each class by its share.
      gamma: γ ≥ 0, how fast the loss fades as p grows.
      alpha: α, one weight a class; default all 1.

    Returns:
      A scalar; 0 where every pixel is void, with gradients of 0.

    Source: arXiv 1708.02002, equation 5, with a softmax for the sigmoid and the mean over pixels
    for that over objects.
    """
    check_label(logits, label)
    num_classes = logits.shape[-1]
    weights = None if alpha is None else as_weights(alpha, num_classes)
    if is_soft(label):
        shares = class_shares(label, num_classes)
        shares = shares if weights is None else shares * weights
        losses = jnp.sum(shares * _fading(-log_softmax(logits), gamma), axis=-1)
    else:
        losses = _fading(pixel_cross_entropy(logits, label), gamma)
        if weights is not None:
            losses *= jnp.sum(class_shares(label, num_classes) * weights, axis=-1)
    return pixel_mean(losses, label, normalizer, num_classes)


def _fading(cross_entropy: jax.Array, gamma: float) -> jax.Array:
    """(1 − p)^γ·x of x = −log p; its gradient is finite at p = 1 for every γ."""
    uncertain = cross_entropy > 0
    safe = jnp.where(uncertain, cross_entropy, 1)
    return jnp.where(uncertain, (-jnp.expm1(-safe)) ** gamma * safe, 0)
