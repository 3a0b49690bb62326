"""Cross-entropy of scores at the label's resolution, without the logits of all pixels at once."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of
from deeplab_jax.losses.cross_entropy import pixel_cross_entropy
from deeplab_jax.losses.targets import at_least_float32, is_soft, valid_pixels


def resized_cross_entropy(
    scores: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    *,
    rows: int,
    align_corners: bool = True,
) -> jax.Array:
    """Returns `softmax_cross_entropy` of the scores enlarged to the label, some rows at a time.

    Logits, probabilities and their gradients are there for one block of rows only: the backward
    pass makes each block anew (arXiv 1604.06174).

    Args:
      scores: [N, h, w, C], floating point.
      label, normalizer, class_weights, label_smoothing: as for `softmax_cross_entropy`; the label
        has the size that scores are enlarged to.
      rows: of the label that are worked on at once, at least 1.
      align_corners: see `ops.resize_bilinear`.

    Raises:
      DeepLabError: a soft label has another number of classes, or `rows` is below 1.
    """
    if rows < 1:
        raise DeepLabError(f"rows={rows} must be at least 1")
    num_classes = scores.shape[-1]
    known = valid_pixels(label, num_classes) if normalizer is None else normalizer
    resized = ops.ResizedRows.of(
        at_least_float32(scores), label.shape[1:3], rows, align_corners=align_corners
    )
    # A soft pixel of all zeros is void.
    labels = resized.split(label, 0 if is_soft(label) else void_of(label, num_classes))
    loss_of = partial(
        pixel_cross_entropy, class_weights=class_weights, label_smoothing=label_smoothing
    )

    @jax.checkpoint
    def of_block(weights: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.sum(loss_of(resized.block(weights), label))

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + of_block(*block), None

    total, _ = lax.scan(add, jnp.zeros((), resized.wide.dtype), (resized.weights, labels))
    return total / jnp.maximum(known, 1).astype(total.dtype)
