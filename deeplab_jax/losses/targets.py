"""Targets and void pixels of a label, and means over pixels, classes and batches."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deeplab_jax.arrays import Array, Bool, Float, Float32, Integer, Num
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of

# The class of each pixel, or its share of every class; `check_label` compares the sizes.
Label = Integer[Array, "_ _ _"] | Float[Array, "_ _ _ _"]
# The same with any axes before the classes, as inside of `jax.vmap`.
Targets = Integer[Array, "*N"] | Float[Array, "*N C"]
Scalar = Float[Array, ""]


def is_soft(label: Targets) -> bool:
    """Returns whether a label holds shares of the classes, [..., C] floats, not one class."""
    return bool(jnp.issubdtype(label.dtype, jnp.floating))


def known_pixels(label: Targets, num_classes: int | None = None) -> Bool[Array, "*N"]:
    """Returns which pixels are not void, as booleans.

    Args:
      label: integer [N, H, W], where `labels.void_label(num_classes)` is void (255; 65535 with more
        than 255 classes), or floating point [N, H, W, C], where a pixel of all zeros is void.
      num_classes: C; None: void is 65535 in uint16 labels and 255 in all others.

    Returns:
      [N, H, W].

    Raises:
      DeepLabError: the label's dtype cannot hold the void value.
    """
    if is_soft(label):
        return jnp.any(label != 0, axis=-1)
    return label != void_of(label, num_classes)


def valid_pixels(label: Targets, num_classes: int | None = None) -> Float32[Array, ""]:
    """Returns the number of pixels that are not void, a float32 scalar.

    Args and Raises: as `known_pixels`.
    """
    # Counted in integers: float32 stops counting at 2^24.
    return jnp.sum(known_pixels(label, num_classes), dtype=jnp.int32).astype(jnp.float32)


def masked_label(
    label: Targets,
    mask: Bool[Array, "*N"],
    num_classes: int | None = None,
) -> Targets:
    """Returns the label with the pixels void where the mask is False.

    Args:
      label: see `known_pixels`.
      mask: [N, H, W], boolean.
      num_classes: see `known_pixels`.

    Raises:
      DeepLabError: the label's dtype cannot hold the void value.
    """
    if is_soft(label):
        return jnp.where(mask[..., None], label, 0)
    return jnp.where(mask, label, void_of(label, num_classes))


def class_shares(
    label: Targets,
    num_classes: int,
    smoothing: float = 0.0,
) -> Float[Array, "*N C"]:
    """Returns each pixel's share of every class; all zeros where it is void.

    Args:
      label: see `known_pixels`.
      num_classes: C.
      smoothing: ε: shares become (1 − ε)·share + ε/C (arXiv 1512.00567, section 7).

    Returns:
      [N, H, W, C], float32 or the label's own floating point where that is wider.
    """
    if is_soft(label):
        shares = at_least_float32(label)
    else:
        shares = of_class(label, num_classes).astype(jnp.float32)
    if smoothing:
        total = jnp.sum(shares, axis=-1, keepdims=True)
        shares = (1 - smoothing) * shares + smoothing / num_classes * total
    return shares


def of_class(label: Integer[Array, "*N"], num_classes: int) -> Bool[Array, "*N C"]:
    """Returns whether each pixel of an integer label is of each class, [N, H, W, C] booleans."""
    # A comparison instead of a gather: its gradient needs no scatter.
    chosen = label[..., None] == jnp.arange(num_classes)
    return chosen & known_pixels(label, num_classes)[..., None]


def at_least_float32(array: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the array in float32, or as it is where that is wider."""
    return jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32))


def check_label(logits: jax.Array, label: jax.Array) -> None:
    """Checks that a label is one for these logits.

    Raises:
      DeepLabError: the sizes differ, or a soft label has another number of classes.
    """
    wanted = logits.shape if is_soft(label) else logits.shape[:-1]
    if label.shape == wanted:
        return
    message = f"logits are {list(logits.shape)}, so labels must be {list(wanted)}"
    raise DeepLabError(f"{message}, got {list(label.shape)}; see losses.shrink_labels")


def as_weights(weights: Sequence[float], num_classes: int) -> Float32[Array, " C"]:
    """Returns one weight a class, float32 [C].

    Raises:
      DeepLabError: there is another number of them.
    """
    array = jnp.asarray(weights, jnp.float32)
    if array.shape != (num_classes,):
        found = list(array.shape)
        raise DeepLabError(f"weights must be one for each of {num_classes} classes, got {found}")
    return array


def pixel_mean(
    losses: Float[Array, "*N"],
    label: Targets,
    normalizer: jax.Array | None = None,
    num_classes: int | None = None,
) -> Scalar:
    """Returns Σ losses by the number of non-void pixels, or by the normaliser.

    Args:
      losses: [N, H, W], 0 where the label is void.
      label, normalizer: as for `softmax_cross_entropy`.
      num_classes: see `known_pixels`.
    """
    total = jnp.sum(losses)
    count = valid_pixels(label, num_classes) if normalizer is None else normalizer
    return total / jnp.maximum(count, 1).astype(total.dtype)


def mean_of_counted(values: Float[Array, " n"], counted: jax.Array) -> Scalar:
    """Returns the mean of the values that count, 0 where none does.

    Args:
      values: [n], such as one a class.
      counted: booleans [n], or one for all.
    """
    counted = jnp.broadcast_to(counted, values.shape)
    return jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(jnp.sum(counted), 1)


def share_of_batch(
    label: jax.Array, normalizer: jax.Array | None, num_classes: int
) -> jax.Array | float:
    """Returns by how much a part's own mean counts in its batch; 1 without a normaliser.

    For losses that are no sum over pixels. Over the parts of a batch these shares add up to 1.

    Args:
      label: of the part.
      normalizer: the pixels of the whole batch that are not void.
      num_classes: see `known_pixels`.
    """
    if normalizer is None:
        return 1.0
    return valid_pixels(label, num_classes) / jnp.maximum(normalizer, 1)
