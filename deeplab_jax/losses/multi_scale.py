"""Losses between the resolutions of scores and label, and over several scales."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax import ops
from deeplab_jax.arrays import Array, Float, Integer, Shaped
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of
from deeplab_jax.losses.cross_entropy import pixel_cross_entropy, softmax_cross_entropy
from deeplab_jax.losses.targets import Label, Scalar, at_least_float32, is_soft, valid_pixels


def shrink_labels(
    label: Shaped[Array, "N H W"] | Shaped[Array, "N H W C"], size: ops.Size
) -> Shaped[Array, "N h w"] | Shaped[Array, "N h w C"]:
    """Returns the label at another size: every pixel takes the nearest one, corners on corners.

    Sides of 8k+1 shrunk to k+1 keep exactly every 8th pixel.

    Args:
      label: [N, H, W], or [N, H, W, C] where it is soft.
      size: (h, w) in pixels, that of the logits.

    Returns:
      [N, h, w] or [N, h, w, C], in the label's dtype.

    Source: the released code of v1 and v2; DeepLab v3, section 4.1, on what it costs.
    """
    rows, columns = (
        nearest_positions(source, target)
        for source, target in zip(label.shape[1:3], size, strict=True)
    )
    return label[:, rows][:, :, columns]


def nearest_positions(source: int, target: int) -> Integer[np.ndarray, " t"]:
    """Returns t·(source − 1)/(target − 1) of each t below `target`, halves rounded up."""
    intervals = max(target - 1, 1)
    index = np.arange(target)
    return (2 * index * (source - 1) + intervals) // (2 * intervals)


SCALED = "scores_"


def multi_scale_cross_entropy(
    maps: Mapping[str, jax.Array],
    label: Label,
    batch_label: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    *,
    native_scales: Collection[float] = (0.5,),
    align_corners: bool = True,
) -> Scalar:
    """Returns the sum of the cross-entropies of the fused scores and of every scale's.

    Each term is a mean over the pixels of its own map that are not void, of weight 1. With scales
    1, 0.75 and 0.5 of a 321×321 crop, the maximum, scale 1 and scale 0.75 are 41×41 against every
    8th pixel of the label; scale 0.5 is 21×21 against every 16th.

    Args:
      maps: the model's endpoints: `scores` [N, h, w, C], and `scores_0.75` and so on, smaller.
      label: [N, H, W] or [N, H, W, C], as for `softmax_cross_entropy`; at the images' size.
      batch_label: that of a whole batch of which this is a part; its pixels, shrunk to the size
        of each term, are the divisors.
      class_weights, label_smoothing: as for `softmax_cross_entropy`.
      native_scales: scales whose scores meet a label of their own size; those of the others are
        enlarged to the size of `scores`.
      align_corners: how scores are enlarged; the model's own convention.

    Source: DeepLab v2, section 4.1.1; the terms and their sizes are the released network's.
    """

    def term(scores: jax.Array) -> jax.Array:
        size, num_classes = scores.shape[1:3], scores.shape[-1]
        whole = None
        if batch_label is not None:
            whole = valid_pixels(shrink_labels(batch_label, size), num_classes)
        target = shrink_labels(label, size)
        return softmax_cross_entropy(scores, target, whole, class_weights, label_smoothing)

    return sum(map(term, _terms(maps, native_scales, align_corners)), jnp.zeros(()))


def _terms(
    maps: Mapping[str, jax.Array], native_scales: Collection[float], align_corners: bool
) -> Iterator[jax.Array]:
    """Yields the scores of each term, the maximum last."""
    native = {f"{SCALED}{scale:g}" for scale in native_scales}
    fused = at_least_float32(maps["scores"])
    size = fused.shape[1:3]
    yield fused
    scaled = sorted(name for name in maps if name.startswith(SCALED))
    for name in scaled:
        scores = at_least_float32(maps[name])
        enlarged = ops.resize_bilinear(scores, size, align_corners=align_corners)
        fused = jnp.maximum(fused, enlarged)
        yield scores if name in native else enlarged
    if scaled:
        yield fused


def resized_cross_entropy(
    scores: Float[Array, "N h w C"],
    label: Label,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    *,
    rows: int,
    align_corners: bool = True,
) -> Scalar:
    """Returns `softmax_cross_entropy` of the scores enlarged to the label, some rows at a time.

    Logits, probabilities and their gradients are there for one block of rows only: the backward
    pass recomputes each block (arXiv 1604.06174).

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
