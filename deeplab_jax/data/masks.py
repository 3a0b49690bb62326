"""Reads users' masks: class indices from grey, palette or colour images, checked value by value."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from deeplab_jax.data.color_maps import Color, packed
from deeplab_jax.data.mask_files import MaskFile, open_mask
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import label_dtype, void_label

# Dtype of the labels of up to 255 classes.
EIGHT_BIT = label_dtype(1)
# Illegal values that an error lists before it says "…".
SHOWN_VALUES = 5


def read_mask(
    source: Path | MaskFile,
    labels: Mapping[int, int],
    *,
    in_opacity: bool = False,
    dtype: np.dtype = EIGHT_BIT,
) -> np.ndarray:
    """Reads a mask of indices: a palette image's indices, never its colours, or grey levels.

    Args:
      source: path of the mask, or the opened mask.
      labels: the class, or the dtype's largest value for void, of each legal value on disk.
      in_opacity: take the values from the opacity channel.
      dtype: uint8, or uint16 for more than 255 classes, see `labels.label_dtype`.

    Returns:
      Mask of that dtype, [H, W]: classes and void.

    Raises:
      DeepLabError: the file is damaged, coloured, or holds another value; value and number of its
        pixels are named.
    """
    mask, path = _opened(source)
    values = mask.opacity() if in_opacity else mask.values()
    largest = np.iinfo(dtype).max
    table = np.full(largest + 1, -1, np.promote_types(dtype, np.int8))
    table[list(labels)] = list(labels.values())
    result = table[np.clip(values, 0, largest)]
    result[(values < 0) | (values > largest)] = -1
    if result.min() < 0:
        void = [value for value, label in labels.items() if label == largest]
        legal = f"legal: classes {_ranges(labels.keys() - set(void))}, void {_ranges(void)}"
        wrong, counts = np.unique(values[result < 0], return_counts=True)
        raise DeepLabError(f"{path}: {_listed('mask value', wrong.tolist(), counts)}; {legal}")
    return result.astype(dtype)


def read_colored_mask(
    source: Path | MaskFile, labels: Mapping[Color, int], *, dtype: np.dtype = EIGHT_BIT
) -> np.ndarray:
    """Reads a mask painted in class colours.

    Args:
      source: path of the mask, or the opened mask.
      labels: the class, or the dtype's largest value for void, of each legal colour.
      dtype: as of `read_mask`.

    Returns:
      Mask of that dtype, [H, W]: classes and void.

    Raises:
      DeepLabError: the file is damaged or holds another colour.
    """
    mask, path = _opened(source)
    colors = mask.colors()
    known = packed(np.array(list(labels), np.uint8))
    order = np.argsort(known)
    values = packed(colors)
    at = np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)
    wrong = known[order[at]] != values
    if wrong.any():
        strange, counts = np.unique(colors[wrong], axis=0, return_counts=True)
        names = [tuple(color) for color in strange.tolist()]
        raise DeepLabError(f"{path}: {_listed('colour', names, counts)}; not in the colour map")
    return np.array(list(labels.values()), dtype)[order[at]]


def identity_labels(num_classes: int) -> dict[int, int]:
    """Returns the labels of masks that hold class indices and `void_label(num_classes)`."""
    return {value: value for value in (*range(num_classes), void_label(num_classes))}


def mask_values(path: Path) -> set[int]:
    """Returns which values a mask of indices holds."""
    return set(np.unique(open_mask(path).values()).tolist())


def _opened(source: Path | MaskFile) -> tuple[MaskFile, Path]:
    mask = source if isinstance(source, MaskFile) else open_mask(source)
    return mask, mask.path


def _listed(kind: str, values: list, counts: np.ndarray) -> str:
    """Returns as in "mask value 17 (23 pixels), 19 (4 pixels)"."""
    shown = [f"{value} ({count} pixels)" for value, count in zip(values, counts, strict=True)]
    rest = ", …" if len(shown) > SHOWN_VALUES else ""
    return f"{kind} {', '.join(shown[:SHOWN_VALUES])}{rest}"


def _ranges(values: Iterable[int]) -> str:
    """Returns values in ascending order, as in "0..10, 12"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs) or "none"
