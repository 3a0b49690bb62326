"""Valid pixels and class proportions of labels, and means over pixels and over classes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from deeplab_jax.arrays import Array, Bool, Float, Float32, Integer, Num
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of

# Hard label [N, H, W], the class of each pixel, or soft label [N, H, W, C], the proportion of every
# class. `check_label` compares the shape with that of the logits.
Label = Integer[Array, "_ _ _"] | Float[Array, "_ _ _ _"]
# Hard or soft label with any number of axes before the classes, for example inside `jax.vmap`.
Targets = Integer[Array, "*N"] | Float[Array, "*N C"]
Scalar = Float[Array, ""]


def is_soft(label: Targets) -> bool:
    """Returns whether a label is soft: proportions of the classes instead of class indices."""
    return bool(jnp.issubdtype(label.dtype, jnp.floating))


def valid_mask(label: Targets, num_classes: int | None = None) -> Bool[Array, "*N"]:
    """Returns a mask that is True at pixels that are not void.

    Args:
      label: hard label [N, H, W], integer, where `labels.void_label(num_classes)` is void (255, or
        65535 for more than 255 classes); or soft label [N, H, W, C], floating point, where pixels
        of all zeros are void.
      num_classes: number of classes C; None: void is 65535 in uint16 labels and 255 in all others.

    Returns:
      bool [N, H, W].

    Raises:
      DeepLabError: the void value does not fit into the dtype of the label.
    """
    if is_soft(label):
        return jnp.any(label != 0, axis=-1)
    return label != void_of(label, num_classes)


def num_valid_pixels(label: Targets, num_classes: int | None = None) -> Float32[Array, ""]:
    """Returns the number of pixels that are not void, as a float32 scalar; see `valid_mask`."""
    # The sums are of integers, because float32 cannot count above 2^24. There are two sums, because
    # a batch may have more pixels than an int32 can count.
    rows = jnp.sum(valid_mask(label, num_classes), axis=-1, dtype=jnp.int32)
    sixteens, rest = (jnp.sum(part).astype(jnp.float32) for part in jnp.divmod(rows, 16))
    return 16 * sixteens + rest


def masked_label(
    label: Targets,
    mask: Bool[Array, "*N"],
    num_classes: int | None = None,
) -> Targets:
    """Sets a label to void where a mask is False.

    Args:
      label: hard label [N, H, W] or soft label [N, H, W, C], see `valid_mask`.
      mask: [N, H, W], boolean.
      num_classes: number of classes C; None: void is 65535 in uint16 labels and 255 in all others.

    Raises:
      DeepLabError: the void value does not fit into the dtype of the label.
    """
    if is_soft(label):
        return jnp.where(mask[..., None], label, 0)
    return jnp.where(mask, label, void_of(label, num_classes))


def class_shares(
    label: Targets,
    num_classes: int,
    smoothing: float = 0.0,
) -> Float[Array, "*N C"]:
    """Converts a label to the proportion of every class in each pixel; zeros at void pixels.

    Args:
      label: hard label [N, H, W] or soft label [N, H, W, C], see `valid_mask`.
      num_classes: number of classes C.
      smoothing: label smoothing ε; a proportion t becomes (1 − ε)·t + ε/C (arXiv 1512.00567,
        section 7).

    Returns:
      [N, H, W, C] in float32, or in float64 if the label is float64.
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
    """Returns the one-hot encoding of a label, boolean [N, H, W, C]; False at void pixels."""
    # Comparing is faster than a gather, whose gradient would be a scatter.
    chosen = label[..., None] == jnp.arange(num_classes)
    return chosen & valid_mask(label, num_classes)[..., None]


def at_least_float32(array: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Converts an array to float32, unless its dtype is wider."""
    return jnp.asarray(array, jnp.promote_types(array.dtype, jnp.float32))


def check_label(logits: jax.Array, label: jax.Array) -> None:
    """Checks that the shape of a label matches the logits.

    Raises:
      DeepLabError: the sizes differ, or a soft label has a different number of classes.
    """
    wanted = logits.shape if is_soft(label) else logits.shape[:-1]
    if label.shape == wanted:
        return
    raise DeepLabError(
        f"the label must have shape {list(wanted)}, because the logits have shape "
        f"{list(logits.shape)}; got {list(label.shape)}. If the sizes differ, upsample the logits, "
        "or downsample the label with losses.shrink_labels"
    )


def as_weights(weights: Sequence[float], num_classes: int) -> Float32[Array, " C"]:
    """Converts class weights to a float32 array [C].

    Raises:
      DeepLabError: the number of weights is not the number of classes C.
    """
    array = jnp.asarray(weights, jnp.float32)
    if array.shape != (num_classes,):
        found = list(array.shape)
        raise DeepLabError(f"class weights must have shape [{num_classes}], got {found}")
    return array


def pixel_mean(
    losses: Float[Array, "*N"],
    label: Targets,
    normalizer: jax.Array | None = None,
    num_classes: int | None = None,
) -> Scalar:
    """Computes the mean of the pixel losses: their sum divided by the number of valid pixels.

    Args:
      losses: [N, H, W], 0 where the label is void.
      label: label of the pixels.
      normalizer: divisor instead of the number of valid pixels, see `softmax_cross_entropy`.
      num_classes: number of classes C, which determines the void label, see `valid_mask`.
    """
    total = jnp.sum(losses)
    count = num_valid_pixels(label, num_classes) if normalizer is None else normalizer
    return total / jnp.maximum(count, 1).astype(total.dtype)


def mean_of_counted(values: Float[Array, " n"], counted: jax.Array) -> Scalar:
    """Computes the mean of selected values; 0 if none is selected.

    Args:
      values: [n], for example one value per class.
      counted: boolean [n] or scalar, True for the values to include.
    """
    counted = jnp.broadcast_to(counted, values.shape)
    return jnp.sum(jnp.where(counted, values, 0)) / jnp.maximum(jnp.sum(counted), 1)


def fraction_of_batch(
    label: jax.Array, normalizer: jax.Array | None, num_classes: int
) -> jax.Array | float:
    """Returns the fraction of the batch's valid pixels that belong to one microbatch.

    Losses that are not sums over pixels use this fraction as the weight of the microbatch.

    Args:
      label: label of the microbatch.
      normalizer: number of valid pixels of the whole batch; None: the microbatch is the whole
        batch, and the fraction is 1.
      num_classes: number of classes C, which determines the void label, see `valid_mask`.
    """
    if normalizer is None:
        return 1.0
    return num_valid_pixels(label, num_classes) / jnp.maximum(normalizer, 1)
