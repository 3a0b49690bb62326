"""Reads users' masks: class indices from grey, palette or colour images, checked value by value."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from deeplab_jax.data.color_maps import Color, packed
from deeplab_jax.data.images import open_image, read_bytes, upright
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import IGNORE_LABEL

# Illegal values that an error lists before it says "…".
SHOWN_VALUES = 5


def read_mask(path: Path, labels: Mapping[int, int]) -> np.ndarray:
    """Reads a mask of indices: a palette image's indices, never its colours, or grey levels.

    Args:
      path: of the mask.
      labels: the class, or 255 for void, of each legal value on disk.

    Returns:
      uint8 [H, W], classes and 255.

    Raises:
      DeepLabError: the file is damaged, coloured, or holds another value; value and number of its
        pixels are named.
    """
    values = _indices(_open_mask(path), path)
    table = np.full(256, -1, np.int16)
    table[list(labels)] = list(labels.values())
    result = table[np.clip(values, 0, 255)]
    result[(values < 0) | (values > 255)] = -1
    if result.min() < 0:
        legal = f"legal: classes {_ranges(labels, void=False)}, void {_ranges(labels, void=True)}"
        wrong, counts = np.unique(values[result < 0], return_counts=True)
        raise DeepLabError(f"{path}: {_listed('mask value', wrong.tolist(), counts)}; {legal}")
    return result.astype(np.uint8)


def read_colored_mask(path: Path, labels: Mapping[Color, int]) -> np.ndarray:
    """Reads a mask painted in class colours.

    Args:
      path: of the mask.
      labels: the class, or 255 for void, of each legal colour.

    Returns:
      uint8 [H, W], classes and 255.

    Raises:
      DeepLabError: the file is damaged or holds another colour.
    """
    colors = np.asarray(_open_mask(path).convert("RGB"))
    known = packed(np.array(list(labels), np.uint8))
    order = np.argsort(known)
    values = packed(colors)
    at = np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)
    wrong = known[order[at]] != values
    if wrong.any():
        strange, counts = np.unique(colors[wrong], axis=0, return_counts=True)
        names = [tuple(color) for color in strange.tolist()]
        raise DeepLabError(f"{path}: {_listed('colour', names, counts)}; not in the colour map")
    return np.array(list(labels.values()), np.uint8)[order[at]]


def identity_labels(num_classes: int) -> dict[int, int]:
    """Returns the labels of masks that hold class indices and 255 for void."""
    return {value: value for value in (*range(num_classes), IGNORE_LABEL)}


def mask_values(path: Path) -> set[int]:
    """Returns which values a mask of indices holds."""
    return set(np.unique(_indices(_open_mask(path), path)).tolist())


def _open_mask(path: Path) -> PIL.Image.Image:
    # As the image is: a mask was painted on what a viewer shows.
    return upright(open_image(*read_bytes(path)))


def _indices(mask: PIL.Image.Image, path: Path) -> np.ndarray:
    if mask.mode == "P":
        return np.asarray(mask)
    values = np.asarray(mask)
    if values.dtype.kind == "f":
        raise DeepLabError(f"{path}: the mask holds numbers with fractions; give class indices")
    if mask.mode == "1":
        return values.astype(np.uint8)
    channels = values.reshape(*values.shape[:2], -1)
    colors = channels[..., : 3 if channels.shape[2] >= 3 else 1]
    if mask.mode == "CMYK" or (colors != colors[..., :1]).any():
        raise DeepLabError(
            f"{path}: the mask is painted in colours; give a colour map that says which colour is "
            "which class"
        )
    return colors[..., 0]


def _listed(kind: str, values: list, counts: np.ndarray) -> str:
    """Returns as in "mask value 17 (23 pixels), 19 (4 pixels)"."""
    shown = [f"{value} ({count} pixels)" for value, count in zip(values, counts, strict=True)]
    rest = ", …" if len(shown) > SHOWN_VALUES else ""
    return f"{kind} {', '.join(shown[:SHOWN_VALUES])}{rest}"


def _ranges(labels: Mapping[int, int], void: bool) -> str:
    """Returns the values on disk that mean a class, or void, as in "0..10, 12"."""
    values = sorted(value for value, label in labels.items() if (label == IGNORE_LABEL) == void)
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs) or "none"
