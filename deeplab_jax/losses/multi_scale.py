"""DeepLab v2's loss on the scores of several scales and on their maximum."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp

from deeplab_jax import ops
from deeplab_jax.losses.cross_entropy import softmax_cross_entropy
from deeplab_jax.losses.shrinking import shrink_labels
from deeplab_jax.losses.targets import at_least_float32, valid_pixels

SCALED = "scores_"


def multi_scale_cross_entropy(
    maps: Mapping[str, jax.Array],
    label: jax.Array,
    batch_label: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    *,
    native_scales: Collection[float] = (0.5,),
    align_corners: bool = True,
) -> jax.Array:
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

    return sum(map(term, _terms(maps, native_scales, align_corners)))


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
