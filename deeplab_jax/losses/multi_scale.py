"""Losses on scores of lower resolution than the label, and on scores at several scales."""

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
from deeplab_jax.losses.targets import Label, Scalar, at_least_float32, is_soft, num_valid_pixels


def shrink_labels(
    label: Shaped[Array, "N H W"] | Shaped[Array, "N H W C"],
    size: ops.Size,
    *,
    align_corners: bool = True,
) -> Shaped[Array, "N h w"] | Shaped[Array, "N h w C"]:
    """Downsamples a label to the size of the logits, by nearest neighbor.

    With aligned corners, a side of 8k + 1 pixels that is downsampled to k + 1 keeps exactly every
    8th pixel.

    Args:
      label: hard label [N, H, W], or soft label [N, H, W, C].
      size: (h, w) of the logits.
      align_corners: whether the centers of the corner pixels coincide, as in the model.

    Returns:
      [N, h, w] or [N, h, w, C], in the dtype of the label.

    Source: released code of DeepLab v1 and v2. DeepLab v3, section 4.1, reports that training with
    downsampled labels lowers the accuracy.
    """
    rows, columns = (
        nearest_positions(source, target, align_corners)
        for source, target in zip(label.shape[1:3], size, strict=True)
    )
    return label[:, rows][:, :, columns]


def nearest_positions(
    source: int, target: int, align_corners: bool = True
) -> Integer[np.ndarray, " t"]:
    """Returns, for each target pixel along one axis, the index of the source pixel to copy.

    For target pixel t, the index is t·(source − 1)/(target − 1) with aligned corners, otherwise
    (t + ½)·source/target − ½, each rounded half up.

    Args:
      source, target: number of pixels before and after downsampling.
      align_corners: whether the centers of the first and of the last pixels coincide.
    """
    index = np.arange(target)
    if not align_corners:
        return (2 * index + 1) * source // (2 * target)
    intervals = max(target - 1, 1)
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
    """Adds up the cross-entropy of the scores at every scale and that of the fused scores.

    The fused scores are the maximum over all scales, after upsampling to the size at scale 1. If
    scale 1 is the only scale, there are no fused scores, and the sum has one term.

    Each term is the mean over the valid pixels of a label that is downsampled to the size of the
    scores. For example, with scales 1, 0.75 and 0.5 and a crop of 321×321, the fused scores and
    those at scale 1 are 41×41 and use every 8th pixel of the label. The scores at scale 0.75 are
    upsampled to this size. The scores at scale 0.5 are 21×21 and use every 16th pixel.

    Args:
      maps: endpoints of the model: `scores` [N, h, w, C] at scale 1, and the smaller maps of the
        other scales, such as `scores_0.75`.
      label: [N, H, W] or [N, H, W, C] at the size of the images, see `softmax_cross_entropy`.
      batch_label: label of the whole batch, if the batch is processed in microbatches. Each term is
        then divided by the number of valid pixels of this label, downsampled to the size of the
        scores.
      class_weights, label_smoothing: see `softmax_cross_entropy`.
      native_scales: scales whose scores are not upsampled; the scores at all other scales are
        upsampled to the size of `scores`.
      align_corners: whether resizing aligns corners, as in the model.

    Source: DeepLab v2, section 4.1.1; terms and sizes are those of the released network.
    """

    def term(scores: jax.Array) -> jax.Array:
        num_classes = scores.shape[-1]
        shrink = partial(shrink_labels, size=scores.shape[1:3], align_corners=align_corners)
        whole = None
        if batch_label is not None:
            whole = num_valid_pixels(shrink(batch_label), num_classes)
        target = shrink(label)
        return softmax_cross_entropy(scores, target, whole, class_weights, label_smoothing)

    return sum(map(term, _terms(maps, native_scales, align_corners)), jnp.zeros(()))


def _terms(
    maps: Mapping[str, jax.Array], native_scales: Collection[float], align_corners: bool
) -> Iterator[jax.Array]:
    """Yields the scores of every scale, then the fused scores if there is more than one scale."""
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
    """Computes `softmax_cross_entropy` of upsampled scores, one block of label rows at a time.

    The scores are upsampled to the size of the label.

    Logits, probabilities and their gradients are in memory for only one block at a time; the
    backward pass recomputes each block (gradient checkpointing, arXiv 1604.06174).

    Args:
      scores: [N, h, w, C], floating point.
      label, normalizer, class_weights, label_smoothing: see `softmax_cross_entropy`.
      rows: maximum number of label rows per block, at least 1.
      align_corners: whether the upsampling aligns corners, see `ops.resize_bilinear`.

    Raises:
      DeepLabError: soft label and scores differ in the number of classes, or `rows` is below 1.
    """
    if rows < 1:
        raise DeepLabError(f"rows={rows}, the number of rows per block, must be at least 1")
    num_classes = scores.shape[-1]
    valid = num_valid_pixels(label, num_classes) if normalizer is None else normalizer
    resized = ops.ResizedRows.of(
        at_least_float32(scores), label.shape[1:3], rows, align_corners=align_corners
    )
    # In a soft label, pixels of all zeros are void.
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
    return total / jnp.maximum(valid, 1).astype(total.dtype)
