"""Losses of overlap: Dice and Lovász-softmax."""

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
    is_soft,
    known_pixels,
    mean_of_counted,
    of_class,
    share_of_batch,
)


def dice_loss(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    *,
    smooth: float = 1.0,
    present_only: bool = True,
) -> Scalar:
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


def lovasz_softmax(
    logits: Float[Array, "N H W C"],
    label: Label,
    normalizer: jax.Array | None = None,
    *,
    present_only: bool = True,
    per_image: bool = False,
) -> Scalar:
    """Returns the mean over classes of the Lovász extension of the Jaccard loss.

    The errors of class c are 1 − p[c] at its own pixels and p[c] elsewhere, with p the softmax of
    the logits. At errors of 0 and 1 the loss is the mean of 1 − IoU.

    Args:
      logits: [N, H, W, C], floating point.
      label: [N, H, W], integer; void is 255, or 65535 with more than 255 classes.
      normalizer: the pixels of a whole batch of which this is a part. Errors are ranked within
        the part, and the part counts by its own pixels.
      present_only: whether classes that the label does not hold are left out; else each counts by
        its largest error.
      per_image: whether images are taken one by one (then averaged over those that are not all
        void), which lets every device sort its own.

    Returns:
      A scalar, 0..1; 0 where every pixel is void, with gradients of 0.

    Raises:
      DeepLabError: the label is soft: the loss is one of sets.

    Source: arXiv 1705.08790, equations 8 to 11 and algorithm 1.
    """
    check_label(logits, label)
    if is_soft(label):
        raise DeepLabError(
            "lovasz_softmax needs an integer label [N, H, W]: the argmax of the shares"
        )
    if not per_image:
        logits, label = _as_one_image(logits), _as_one_image(label[..., None])[..., 0]
    losses, known = jax.vmap(partial(_of_image, present_only=present_only))(logits, label)
    share = share_of_batch(label, normalizer, logits.shape[-1])
    return share * mean_of_counted(losses, known)


def _as_one_image(array: jax.Array) -> jax.Array:
    return jnp.reshape(array, (1, -1, 1, array.shape[-1]))


def _of_image(
    logits: Float[Array, "H W C"], label: Integer[Array, "H W"], present_only: bool
) -> tuple[Scalar, Bool[Array, ""]]:
    """Returns the loss of one image [H, W, C] and whether any pixel is known."""
    known = known_pixels(label, logits.shape[-1])[..., None]
    truth = of_class(label, logits.shape[-1])
    probability = jax.nn.softmax(at_least_float32(logits))
    errors = jnp.where(known, jnp.abs(truth - probability), 0)
    flat = errors.reshape(-1, errors.shape[-1]).T
    classes = truth.reshape(-1, truth.shape[-1]).T
    # One class after the other: a sort of all at once would hold several maps of the logits' size.
    weights = lax.map(
        lambda one: jaccard_weights(one[0], one[1], known.ravel()),
        (lax.stop_gradient(flat), classes),
    )
    counted = jnp.any(classes, axis=1) if present_only else jnp.any(known)
    return mean_of_counted(jnp.sum(weights * flat, axis=1), counted), jnp.any(known)


def jaccard_weights(
    errors: Float[Array, " P"], truth: Bool[Array, " P"], known: Bool[Array, " P"]
) -> Float32[Array, " P"]:
    """Returns by how much each error raises the Jaccard loss, the larger ones being there already.

    The Lovász extension is Σ weights·errors, and the weights are its gradient. They are written as
    the increments themselves, not as differences of Jaccard losses, which float32 cannot
    distinguish in a large image.

    Args:
      errors: [P], ≥ 0.
      truth: [P], boolean: the pixels of the class.
      known: [P], boolean: the pixels that are not void.

    Returns:
      float32 [P]; any number at void.
    """
    position = jnp.arange(errors.size, dtype=jnp.int32)
    key = jnp.where(known, -errors, 1)
    _, hit, order = lax.sort((key, truth, position), num_keys=1, is_stable=False)
    missed = jnp.cumsum(hit, dtype=jnp.int32)
    false = position + 1 - missed
    num_true = missed[-1]
    union = (num_true + false).astype(jnp.float32)
    overlap = (num_true - missed).astype(jnp.float32)
    # Without a true pixel the loss is 1 from the first error on.
    of_false = jnp.where(union > 1, overlap / jnp.maximum(union - 1, 1) / union, num_true == 0)
    steps = jnp.where(hit, 1 / jnp.maximum(union, 1), of_false)
    return jnp.zeros_like(steps).at[order].set(steps, unique_indices=True)
