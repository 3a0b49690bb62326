"""Softmax cross-entropy of every pixel, and its mean."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deeplab_jax.losses.means import pixel_mean
from deeplab_jax.losses.targets import (
    as_weights,
    at_least_float32,
    check_label,
    class_shares,
    is_soft,
    known_pixels,
    of_class,
)


def softmax_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Returns −Σ w[label]·log softmax(logits)[label] over the non-void pixels, by their number.

    Args:
      logits: [N, H, W, C], floating point.
      label: [N, H, W], integer; void is 255, or 65535 with more than 255 classes. Or
        [N, H, W, C], floating point: the share of each class; a pixel of all zeros is void.
      normalizer: what to divide by instead, such as the pixels of a whole batch of which this is
        a part.
      class_weights: w, one a class; default all 1. The divisor stays the number of pixels, as in
        the released code, so weights should average about 1 over the pixels.
      label_smoothing: ε, 0..1: the share of the label that is spread evenly over all classes.

    Returns:
      A scalar; 0 where every pixel is void, with gradients of 0.

    Raises:
      DeepLabError: the shapes do not go together, or the label's dtype cannot hold its void.

    Source: DeepLab v2, section 4.1; the mean over labelled pixels is the released code's.
    """
    losses = pixel_cross_entropy(logits, label, class_weights, label_smoothing)
    return pixel_mean(losses, label, normalizer, logits.shape[-1])


def pixel_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """Returns the loss of each pixel, [N, H, W], 0 at void; arguments as `softmax_cross_entropy`.

    At least float32, whatever the logits are.
    """
    check_label(logits, label)
    logits = at_least_float32(logits)
    if is_soft(label) or label_smoothing:
        return _of_shares(logits, label, class_weights, label_smoothing)
    known = known_pixels(label, logits.shape[-1])
    losses = jnp.where(known, _of_classes(logits, label), 0)
    if class_weights is None:
        return losses
    weights = as_weights(class_weights, logits.shape[-1])
    return losses * jnp.sum(jnp.where(of_class(label, len(weights)), weights, 0), axis=-1)


def log_softmax(logits: jax.Array) -> jax.Array:
    """Returns logits − log Σ exp logits over the last axis, in at least float32."""
    return jax.nn.log_softmax(at_least_float32(logits))


def _of_classes(logits: jax.Array, label: jax.Array) -> jax.Array:
    # Relative to the largest logit: two logits near 10,000 differ by more than their rounding.
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    log_sum = jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1))
    # Picked before the subtraction: half the time of picking from a log softmax on CPUs.
    picked = jnp.sum(jnp.where(of_class(label, logits.shape[-1]), logits, 0), axis=-1)
    return log_sum - (picked - largest)


def _of_shares(
    logits: jax.Array,
    label: jax.Array,
    class_weights: Sequence[float] | None,
    label_smoothing: float,
) -> jax.Array:
    shares = class_shares(label, logits.shape[-1], label_smoothing)
    if class_weights is not None:
        shares *= as_weights(class_weights, logits.shape[-1])
    # A class without a share may have a logit of −∞.
    return -jnp.sum(jnp.where(shares == 0, 0, shares * log_softmax(logits)), axis=-1)
