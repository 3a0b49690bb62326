"""Cross-entropy of every pixel, of the hardest pixels, and focal loss."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, Float32, Integer
from deeplab_jax.losses.targets import (
    Label,
    Scalar,
    as_weights,
    at_least_float32,
    check_label,
    class_shares,
    is_soft,
    known_pixels,
    of_class,
    pixel_mean,
    share_of_batch,
    valid_pixels,
)


def softmax_cross_entropy(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Scalar:
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
    logits: Float[Array, "N H W C"],
    label: Label,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, "N H W"]:
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


def log_softmax(logits: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
    """Returns logits − log Σ exp logits over the last axis, in at least float32."""
    return jax.nn.log_softmax(at_least_float32(logits))


def _of_classes(
    logits: Float[Array, "N H W C"], label: Integer[Array, "N H W"]
) -> Float[Array, "N H W"]:
    # Relative to the largest logit: two logits near 10,000 differ by more than their rounding.
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    log_sum = jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1))
    # Picked before the subtraction: half the time of picking from a log softmax on CPUs.
    picked = jnp.sum(jnp.where(of_class(label, logits.shape[-1]), logits, 0), axis=-1)
    return log_sum - (picked - largest)


def _of_shares(
    logits: Float[Array, "N H W C"],
    label: Label,
    class_weights: Sequence[float] | None,
    label_smoothing: float,
) -> Float[Array, "N H W"]:
    shares = class_shares(label, logits.shape[-1], label_smoothing)
    if class_weights is not None:
        shares *= as_weights(class_weights, logits.shape[-1])
    # A class without a share may have a logit of −∞.
    return -jnp.sum(jnp.where(shares == 0, 0, shares * log_softmax(logits)), axis=-1)


def hard_pixel_fraction(
    step: jax.Array | int, fraction: float, anneal_steps: int
) -> jax.Array | float:
    """Returns the fraction of pixels to keep: from 1 at step 0 linearly down to `fraction`.

    Args:
      step: of training.
      fraction: final fraction, 0..1.
      anneal_steps: number of steps until it is reached (`hard_example_mining_step`); 0: none.

    Source: an option of the released code.
    """
    if anneal_steps == 0:
        return fraction
    progress = jnp.minimum(step / anneal_steps, 1)
    return progress * fraction + (1 - progress)


def hard_pixel_cross_entropy(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    *,
    fraction: jax.Array | float,
    count_void: bool = True,
) -> Scalar:
    """Returns the mean of the largest pixel losses, zeros among them left out of the divisor.

    Pixels that tie for the last places share these evenly.

    Args:
      logits, label, class_weights, label_smoothing: as for `softmax_cross_entropy`.
      normalizer: the pixels of a whole batch of which this is a part. The hardest pixels are
        looked for in each part, and the part counts by its own pixels.
      fraction: fraction of the pixels that are kept, 0..1; at least one is.
      count_void: whether it is a fraction of all pixels, as in the released code, or of those that
        are not void.

    Returns:
      A scalar; 0 where every pixel is void.

    Source: an option of the released code (top-k pixels); online hard example mining.
    """
    losses = pixel_cross_entropy(logits, label, class_weights, label_smoothing)
    num_classes = logits.shape[-1]
    pixels = losses.size if count_void else valid_pixels(label, num_classes)
    # Float arithmetic, cut off, as the released code does it.
    count = jnp.clip(fraction * jnp.float32(pixels), 1, losses.size).astype(jnp.int32)
    kept = hardest(losses, count)
    mean = jnp.sum(kept * losses) / jnp.maximum(jnp.sum(kept * (losses > 0)), 1)
    return share_of_batch(label, normalizer, num_classes) * mean


def hardest(losses: Float[Array, "*shape"], count: jax.Array) -> Float32[Array, "*shape"]:
    """Returns 1 at the `count` largest losses, 0 elsewhere, and equal shares where the last tie.

    The threshold is built bit by bit: floats that are not negative order like their bits. These
    31 counts take a tenth of a sort's time on CPUs, devices that hold parts of the pixels make
    them side by side, and `count` may change from step to step.

    Args:
      losses: any shape, ≥ 0.
      count: integer scalar, 1 to the number of losses.

    Returns:
      float32, of the losses' shape; without a gradient.
    """
    # The absolute value makes 0 of −0.
    values = jnp.abs(lax.stop_gradient(losses)).astype(jnp.float32)
    bits = lax.bitcast_convert_type(values, jnp.int32)

    def set_bit(index: jax.Array, threshold: jax.Array) -> jax.Array:
        candidate = threshold | (1 << (30 - index))
        return jnp.where(jnp.sum(bits >= candidate) >= count, candidate, threshold)

    threshold = lax.fori_loop(0, 31, set_bit, jnp.int32(0))
    above, level = bits > threshold, bits == threshold
    left = (count - jnp.sum(above)) / jnp.maximum(jnp.sum(level), 1)
    return jnp.where(above, 1, jnp.where(level, left, 0)).astype(jnp.float32)


def focal_loss(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    *,
    gamma: float = 2.0,
    alpha: Sequence[float] | None = None,
) -> Scalar:
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


def _fading(cross_entropy: Float[Array, "*shape"], gamma: float) -> Float[Array, "*shape"]:
    """(1 − p)^γ·x of x = −log p; its gradient is finite at p = 1 for every γ."""
    uncertain = cross_entropy > 0
    safe = jnp.where(uncertain, cross_entropy, 1)
    return jnp.where(uncertain, (-jnp.expm1(-safe)) ** gamma * safe, 0)
