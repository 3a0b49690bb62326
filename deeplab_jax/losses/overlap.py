"""Losses based on the overlap of prediction and label: Dice and Lovász-softmax."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Bool, Float, Float32, Integer
from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses.targets import (
    Label,
    Scalar,
    at_least_float32,
    check_label,
    class_shares,
    fraction_of_batch,
    is_soft,
    mean_of_counted,
    of_class,
    valid_mask,
)


def dice_loss(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    *,
    smooth: float = 1.0,
    present_only: bool = True,
) -> Scalar:
    """Computes the Dice loss, 1 − the mean over classes of (2·Σ p·t + s)/(Σ p + Σ t + s).

    p is the softmax of the logits and t the proportion of the class in the label; the sums are over
    the valid pixels of the batch.

    Args:
      logits: [N, H, W, C], floating point.
      label: hard label [N, H, W] or soft label [N, H, W, C], see `softmax_cross_entropy`.
      normalizer: number of valid pixels of the whole batch, if the batch is processed in
        microbatches. The loss is computed within each microbatch, and each microbatch is weighted
        by its number of valid pixels.
      smooth: smoothing constant s, in pixels. If s > 0 and `present_only` is False, the loss of
        classes that are absent from the label also has a gradient.
      present_only: whether to ignore classes that are absent from the label.

    Returns:
      A scalar, 0..1. If all pixels are void, the loss and its gradients are 0.

    Source: arXiv 1606.04797, section 3, with sums instead of sums of squares in the denominator.
    """
    check_label(logits, label)
    valid = valid_mask(label, logits.shape[-1])[..., None]
    probability = jnp.where(valid, jax.nn.softmax(at_least_float32(logits)), 0)
    truth = class_shares(label, logits.shape[-1])
    pixels = tuple(range(truth.ndim - 1))
    true, predicted = truth.sum(pixels), probability.sum(pixels)
    overlap = 2 * (probability * truth).sum(pixels) + smooth
    size = true + predicted + smooth
    # Without smoothing, the loss of a class that is absent from label and prediction is 0.
    distance = jnp.where(size > 0, 1 - overlap / jnp.where(size > 0, size, 1), 0)
    counted = (true > 0) if present_only else jnp.any(valid)
    share = fraction_of_batch(label, normalizer, logits.shape[-1])
    return share * mean_of_counted(distance, counted)


def lovasz_softmax(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    *,
    present_only: bool = True,
    per_image: bool = False,
) -> Scalar:
    """Computes the Lovász-softmax loss, the mean over classes of the Lovász extension of 1 − IoU.

    The error of class c is 1 − p[c] at pixels of that class and p[c] at all others, where p is the
    softmax of the logits. If all errors are 0 or 1, the loss is the mean of 1 − IoU.

    Args:
      logits: [N, H, W, C], floating point.
      label: [N, H, W], integer, with void 255, or 65535 for more than 255 classes.
      normalizer: number of valid pixels of the whole batch, if the batch is processed in
        microbatches. Errors are sorted within each microbatch, and each microbatch is weighted by
        its number of valid pixels.
      present_only: whether to ignore classes that are absent from the label; if False, the loss of
        an absent class c is the largest p[c] of the valid pixels.
      per_image: whether to compute the loss of each image separately and average over the images
        with valid pixels. Each device then sorts only its own images.

    Returns:
      A scalar, 0..1. If all pixels are void, the loss and its gradients are 0.

    Raises:
      DeepLabError: the label is soft, but the loss is only defined for hard labels.

    Source: arXiv 1705.08790, equations 8 to 11 and algorithm 1.
    """
    check_label(logits, label)
    if is_soft(label):
        raise DeepLabError(
            "lovasz_softmax requires an integer label [N, H, W]; use the argmax of a soft label"
        )
    if not per_image:
        logits, label = _as_one_image(logits), _as_one_image(label[..., None])[..., 0]
    losses, valid = jax.vmap(partial(_of_image, present_only=present_only))(logits, label)
    share = fraction_of_batch(label, normalizer, logits.shape[-1])
    return share * mean_of_counted(losses, valid)


def _as_one_image(array: jax.Array) -> jax.Array:
    return jnp.reshape(array, (1, -1, 1, array.shape[-1]))


def _of_image(
    logits: Float[Array, "H W C"], label: Integer[Array, "H W"], present_only: bool
) -> tuple[Scalar, Bool[Array, ""]]:
    """Returns the Lovász-softmax loss of one image, and whether the image has a valid pixel."""
    valid = valid_mask(label, logits.shape[-1])[..., None]
    truth = of_class(label, logits.shape[-1])
    probability = jax.nn.softmax(at_least_float32(logits))
    errors = jnp.where(valid, jnp.abs(truth - probability), 0)
    flat = errors.reshape(-1, errors.shape[-1]).T
    classes = truth.reshape(-1, truth.shape[-1]).T
    # Classes are processed one at a time: sorting the errors of all classes at once would require
    # several arrays as large as the logits.
    weights = lax.map(
        lambda one: jaccard_weights(one[0], one[1], valid.ravel()),
        (lax.stop_gradient(flat), classes),
    )
    counted = jnp.any(classes, axis=1) if present_only else jnp.any(valid)
    return mean_of_counted(jnp.sum(weights * flat, axis=1), counted), jnp.any(valid)


def jaccard_weights(
    errors: Float[Array, " P"], truth: Bool[Array, " P"], valid: Bool[Array, " P"]
) -> Float32[Array, " P"]:
    """Computes the gradient of the Lovász extension of the Jaccard loss for one class.

    The Lovász extension is Σ weights·errors. To define the weights, the pixels are marked as wrong
    one by one, in descending order of their errors. The weight of a pixel is the increase of the
    Jaccard loss (1 − IoU) when this pixel is marked. The increases are computed directly, because
    the difference of two Jaccard losses would be rounded to 0 in float32 for large images.

    Args:
      errors: [P], values ≥ 0.
      truth: [P], boolean, True at pixels of the class.
      valid: [P], boolean, True at pixels that are not void.

    Returns:
      Weights, float32 [P]; undefined at void pixels.
    """
    position = jnp.arange(errors.size, dtype=jnp.int32)
    key = jnp.where(valid, -errors, 1)
    _, hit, order = lax.sort((key, truth, position), num_keys=1, is_stable=False)
    missed = jnp.cumsum(hit, dtype=jnp.int32)
    false = position + 1 - missed
    num_true = missed[-1]
    union = (num_true + false).astype(jnp.float32)
    overlap = (num_true - missed).astype(jnp.float32)
    # If no pixel is of the class, the first error already increases the loss to 1.
    of_false = jnp.where(union > 1, overlap / jnp.maximum(union - 1, 1) / union, num_true == 0)
    steps = jnp.where(hit, 1 / jnp.maximum(union, 1), of_false)
    return jnp.zeros_like(steps).at[order].set(steps, unique_indices=True)
