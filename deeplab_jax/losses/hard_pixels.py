"""Cross-entropy of the hardest pixels alone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.losses.cross_entropy import pixel_cross_entropy
from deeplab_jax.losses.means import share_of_batch
from deeplab_jax.losses.targets import valid_pixels


def hard_pixel_share(step: jax.Array | int, share: float, mining_step: int) -> jax.Array | float:
    """Returns the share of pixels to keep: from 1 at step 0 linearly down to `share`.

    Args:
      step: of training.
      share: what is kept in the end, 0..1.
      mining_step: the step that reaches it (`hard_example_mining_step`); 0: from the start.

    Source: an option of the released code.
    """
    if mining_step == 0:
        return share
    progress = jnp.minimum(step / mining_step, 1)
    return progress * share + (1 - progress)


def hard_pixel_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    normalizer: jax.Array | None = None,
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    *,
    share: jax.Array | float,
    count_void: bool = True,
) -> jax.Array:
    """Returns the mean of the largest pixel losses, zeros among them left out of the divisor.

    Pixels that tie for the last places share these evenly.

    Args:
      logits, label, class_weights, label_smoothing: as for `softmax_cross_entropy`.
      normalizer: the pixels of a whole batch of which this is a part. The hardest pixels are
        looked for in each part, and the part counts by its own pixels.
      share: of the pixels that are kept, 0..1; at least one is.
      count_void: whether it is a share of all pixels, as in the released code, or of those that
        are not void.

    Returns:
      A scalar; 0 where every pixel is void.

    Source: an option of the released code (top-k pixels); online hard example mining.
    """
    losses = pixel_cross_entropy(logits, label, class_weights, label_smoothing)
    num_classes = logits.shape[-1]
    pixels = losses.size if count_void else valid_pixels(label, num_classes)
    # Float arithmetic, cut off, as the released code does it.
    count = jnp.clip(share * jnp.float32(pixels), 1, losses.size).astype(jnp.int32)
    kept = hardest(losses, count)
    mean = jnp.sum(kept * losses) / jnp.maximum(jnp.sum(kept * (losses > 0)), 1)
    return share_of_batch(label, normalizer, num_classes) * mean


def hardest(losses: jax.Array, count: jax.Array) -> jax.Array:
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
