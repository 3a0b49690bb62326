"""Targets and valid pixels of a label, and means over pixels, classes and batches."""

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
    """Returns whether a label holds proportions of the classes, [..., C] floats, not one class."""
    return bool(jnp.issubdtype(label.dtype, jnp.floating))


def valid_mask(label: Targets, num_classes: int | None = None) -> Bool[Array, "*N"]:
    """Returns the mask of pixels that are not void.

    Args:
      label: integer [N, H, W], where `labels.void_label(num_classes)` is void (255; 65535 with more
        than 255 classes), or floating point [N, H, W, C], where pixels of all zeros are void.
      num_classes: C. With None, void is 65535 in uint16 labels and 255 in all others.

    Returns:
      bool [N, H, W].

    Raises:
      DeepLabError: the dtype of the label cannot hold the void value.
    """
    if is_soft(label):
        return jnp.any(label != 0, axis=-1)
    return label != void_of(label, num_classes)


def num_valid_pixels(label: Targets, num_classes: int | None = None) -> Float32[Array, ""]:
    """Returns the number of pixels that are not void, a float32 scalar.

    Args and Raises: see `valid_mask`.
    """
    # Counted as integers, since float32 cannot count beyond 2^24.
    return jnp.sum(valid_mask(label, num_classes), dtype=jnp.int32).astype(jnp.float32)


def masked_label(
    label: Targets,
    mask: Bool[Array, "*N"],
    num_classes: int | None = None,
) -> Targets:
    """Returns the label with void where the mask is False.

    Args:
      label: see `valid_mask`.
      mask: [N, H, W], boolean.
      num_classes: see `valid_mask`.

    Raises:
      DeepLabError: the dtype of the label cannot hold the void value.
    """
    if is_soft(label):
        return jnp.where(mask[..., None], label, 0)
    return jnp.where(mask, label, void_of(label, num_classes))


def class_shares(
    label: Targets,
    num_classes: int,
    smoothing: float = 0.0,
) -> Float[Array, "*N C"]:
    """Returns the proportion of every class in each pixel; zeros at void.

    Args:
      label: see `valid_mask`.
      num_classes: C.
      smoothing: ε; a proportion t becomes (1 − ε)·t + ε/C (arXiv 1512.00567, section 7).

    Returns:
      [N, H, W, C], float32 or the wider floating-point dtype of the label.
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
    # A comparison instead of a gather, whose gradient would be a scatter.
    chosen = label[..., None] == jnp.arange(num_classes)
    return chosen & valid_mask(label, num_classes)[..., None]


def at_least_float32(array: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the array in float32, or in its own dtype if that is wider."""
    return jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32))


def check_label(logits: jax.Array, label: jax.Array) -> None:
    """Checks that the shape of a label matches the logits.

    Raises:
      DeepLabError: the sizes differ, or a soft label has another number of classes.
    """
    wanted = logits.shape if is_soft(label) else logits.shape[:-1]
    if label.shape == wanted:
        return
    message = f"logits are {list(logits.shape)}, so labels must be {list(wanted)}"
    raise DeepLabError(f"{message}, got {list(label.shape)}; see losses.shrink_labels")


def as_weights(weights: Sequence[float], num_classes: int) -> Float32[Array, " C"]:
    """Returns weights as an array, float32 [C].

    Raises:
      DeepLabError: the number of weights is not C.
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
    """Returns Σ losses divided by the number of valid pixels, or by the normalizer.

    Args:
      losses: [N, H, W], 0 where the label is void.
      label, normalizer: see `softmax_cross_entropy`.
      num_classes: see `valid_mask`.
    """
    total = jnp.sum(losses)
    count = num_valid_pixels(label, num_classes) if normalizer is None else normalizer
    return total / jnp.maximum(count, 1).astype(total.dtype)


def mean_of_counted(values: Float[Array, " n"], counted: jax.Array) -> Scalar:
    """Returns the mean of the selected values, 0 where none is selected.

    Args:
      values: [n], such as one per class.
      counted: selection, boolean [n] or scalar.
    """
    counted = jnp.broadcast_to(counted, values.shape)
    return jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(jnp.sum(counted), 1)


def fraction_of_batch(
    label: jax.Array, normalizer: jax.Array | None, num_classes: int
) -> jax.Array | float:
    """Returns the weight of a part's mean in its batch; 1 without a normalizer.

    Used by losses that are not sums over pixels. The weights of the parts of a batch sum to 1.

    Args:
      label: label of the part.
      normalizer: number of valid pixels of the whole batch.
      num_classes: see `valid_mask`.
    """
    if normalizer is None:
        return 1.0
    return num_valid_pixels(label, num_classes) / jnp.maximum(normalizer, 1)
