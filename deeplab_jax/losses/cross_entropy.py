"""Cross-entropy over all pixels or over the hardest pixels, and the focal loss."""

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
    fraction_of_batch,
    is_soft,
    of_class,
    pixel_mean,
    valid_mask,
)


def softmax_cross_entropy(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Scalar:
    """Computes the mean softmax cross-entropy over the pixels that are not void.

    The result is −Σ w[label]·log softmax(logits)[label] / (number of valid pixels).

    Args:
      logits: [N, H, W, C], floating point.
      label: hard or soft label of each pixel. Hard labels are integers [N, H, W]; void is 255, or
        65535 for more than 255 classes. Soft labels are floating-point proportions of the classes
        [N, H, W, C]; a pixel is void if all its proportions are 0.
      normalizer: divisor instead of the number of valid pixels. If a batch is processed in
        microbatches, pass the number of valid pixels of the whole batch, so that the losses of the
        microbatches add up.
      class_weights: weight w of each class (default: all 1). The divisor remains the number of
        pixels, as in the released code, so weights should average about 1 over the pixels.
      label_smoothing: ε, 0..1: fraction of the label that is distributed evenly over all classes.

    Returns:
      A scalar. If all pixels are void, the loss and its gradients are 0.

    Raises:
      DeepLabError: the shapes do not match, or the void value does not fit into the dtype of the
        label.

    Source: DeepLab v2, section 4.1; the mean over valid pixels follows the released code.
    """
    losses = pixel_cross_entropy(logits, label, class_weights, label_smoothing)
    return pixel_mean(losses, label, normalizer, logits.shape[-1])


def pixel_cross_entropy(
    logits: Float[Array, "N H W C"],
    label: Label,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, "N H W"]:
    """Computes the softmax cross-entropy of each pixel.

    The arguments are those of `softmax_cross_entropy`.

    Returns:
      [N, H, W] in at least float32, 0 at void pixels.
    """
    check_label(logits, label)
    logits = at_least_float32(logits)
    if is_soft(label) or label_smoothing:
        return _of_shares(logits, label, class_weights, label_smoothing)
    valid = valid_mask(label, logits.shape[-1])
    losses = jnp.where(valid, _of_classes(logits, label), 0)
    if class_weights is None:
        return losses
    weights = as_weights(class_weights, logits.shape[-1])
    return losses * jnp.sum(jnp.where(of_class(label, len(weights)), weights, 0), axis=-1)


def log_softmax(logits: Float[Array, "*N C"]) -> Float[Array, "*N C"]:
    """Computes the log softmax over the last axis, in at least float32."""
    return jax.nn.log_softmax(at_least_float32(logits))


def _of_classes(
    logits: Float[Array, "N H W C"], label: Integer[Array, "N H W"]
) -> Float[Array, "N H W"]:
    # The largest logit is subtracted so that large logits lose no precision.
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    log_sum = jnp.log(jnp.sum(jnp.exp(logits - largest[..., None]), axis=-1))
    # On CPUs, this takes half the time of computing the log softmax and then selecting from it.
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
    # A class with proportion 0 may have the logit −∞.
    return -jnp.sum(jnp.where(shares == 0, 0, shares * log_softmax(logits)), axis=-1)


def hard_pixel_fraction(
    step: jax.Array | int, fraction: float, anneal_steps: int
) -> jax.Array | float:
    """Computes the fraction of pixels to keep, which decreases linearly from 1 to `fraction`.

    Args:
      step: training step, from 0.
      fraction: final fraction, 0..1.
      anneal_steps: number of steps until `fraction` is reached; 0: the result is always `fraction`.

    Source: `hard_example_mining_step` of the released code.
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
) -> Scalar:
    """Computes the mean cross-entropy over the pixels with the largest losses.

    The sum of the kept losses is divided by the number of kept pixels with a loss above 0. If only
    some of the pixels with the same loss can be kept, all of them are kept, with equal weights
    below 1.

    Args:
      logits, label, class_weights, label_smoothing: see `softmax_cross_entropy`.
      normalizer: number of valid pixels of the whole batch, if the batch is processed in
        microbatches. The mean over the hardest pixels of this microbatch is then multiplied by
        (number of valid pixels of this microbatch) / `normalizer`.
      fraction: number of pixels to keep, as a fraction of all pixels including void pixels, 0..1;
        at least one pixel is kept.

    Returns:
      A scalar, 0 if all pixels are void.

    Source: `top_k_percent_pixels` of the released code; online hard example mining.
    """
    losses = pixel_cross_entropy(logits, label, class_weights, label_smoothing)
    # Truncated floating-point product, as in the released code.
    count = jnp.clip(fraction * jnp.float32(losses.size), 1, losses.size).astype(jnp.int32)
    kept = hardest(losses, count)
    mean = jnp.sum(kept * losses) / jnp.maximum(jnp.sum(kept * (losses > 0)), 1)
    return fraction_of_batch(label, normalizer, logits.shape[-1]) * mean


def hardest(losses: Float[Array, "*shape"], count: jax.Array) -> Float32[Array, "*shape"]:
    """Returns the weight of each loss: 1 for the `count` largest losses, 0 for all others.

    If several losses are equal to the `count`-th largest loss, the remaining weight is divided
    evenly among them, so that all weights add up to `count`.

    Bisection finds the bits of the `count`-th largest loss in 31 passes over the losses. On CPUs,
    this takes a tenth of the time of a sort. The losses may be sharded, and `count` may be traced.

    Args:
      losses: any shape, values ≥ 0.
      count: integer scalar, from 1 to the number of losses.

    Returns:
      float32 of the same shape, without a gradient.
    """
    # Non-negative floats have the same order as their bit patterns. Each pass therefore sets a bit
    # of the threshold if at least `count` losses reach it. The absolute value replaces −0 by 0.
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
    """Computes the mean focal loss over the pixels that are not void.

    The result is −Σ α[label]·(1 − p[label])^γ·log p[label] / (number of valid pixels), where p is
    the softmax of the logits. With γ = 0 it is the cross-entropy with class weights α.

    Args:
      logits, label, normalizer: see `softmax_cross_entropy`. For a soft label, the losses of all
        classes are added, weighted by their proportions.
      gamma: focusing exponent γ ≥ 0.
      alpha: class weights α, one per class (default: all 1).

    Returns:
      A scalar. If all pixels are void, the loss and its gradients are 0.

    Source: arXiv 1708.02002, equation 5, with softmax instead of sigmoid, and a mean over pixels
    instead of objects.
    """
    check_label(logits, label)
    num_classes = logits.shape[-1]
    weights = None if alpha is None else as_weights(alpha, num_classes)
    if is_soft(label):
        shares = class_shares(label, num_classes)
        shares = shares if weights is None else shares * weights
        # A class with proportion 0 may have the logit −∞.
        cross_entropy = jnp.where(shares == 0, 0, -log_softmax(logits))
        losses = jnp.sum(shares * _fading(cross_entropy, gamma), axis=-1)
    else:
        losses = _fading(pixel_cross_entropy(logits, label), gamma)
        if weights is not None:
            losses *= jnp.sum(class_shares(label, num_classes) * weights, axis=-1)
    return pixel_mean(losses, label, normalizer, num_classes)


def _fading(cross_entropy: Float[Array, "*shape"], gamma: float) -> Float[Array, "*shape"]:
    """Computes (1 − p)^γ·x, where x = −log p is the cross-entropy of a pixel.

    The gradient at p = 1 is finite for every γ.
    """
    uncertain = cross_entropy > 0
    safe = jnp.where(uncertain, cross_entropy, 1)
    return jnp.where(uncertain, (-jnp.expm1(-safe)) ** gamma * safe, 0)
