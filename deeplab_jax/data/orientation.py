"""EXIF orientation: turning arrays, and aligning a label with its image."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import PIL.ExifTags
import PIL.Image

from deeplab_jax.errors import DeepLabError

UPRIGHT = 1
# What the masks were drawn on, where sizes do not decide.
DISPLAYED, STORED = "displayed", "stored"

_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        1: lambda pixels: pixels,
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: np.swapaxes(pixels, 0, 1),
        6: lambda pixels: np.rot90(pixels, -1),
        7: lambda pixels: np.rot90(np.swapaxes(pixels, 0, 1), 2),
        8: lambda pixels: np.rot90(pixels, 1),
    }
)
_INVERSES = {6: 8, 8: 6}


def orientation_of(image: PIL.Image.Image) -> int:
    """Returns the EXIF orientation, 1..8, of an image that is not decoded yet; illegal ones are 1.

    Pillow turns a TIFF, and drops its tag, while it decodes it.
    """
    orientation = image.getexif().get(PIL.ExifTags.Base.Orientation, UPRIGHT)
    return orientation if orientation in _TURNS else UPRIGHT


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns stored pixels [H, W, …] as a viewer displays them."""
    return np.ascontiguousarray(_TURNS[orientation](pixels))


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns displayed pixels [H, W, …] as they are stored; the inverse of `turned`."""
    return turned(pixels, _INVERSES.get(orientation, orientation))


def stored_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Returns the stored (height, width) of an image that is displayed with `size`."""
    return size if orientation <= 4 else size[::-1]


def aligned_label(
    as_displayed: np.ndarray | None,
    as_stored: np.ndarray | None,
    *,
    orientation: int,
    drawn_on: str | None,
    origin: object,
) -> tuple[np.ndarray, bool]:
    """Chooses the label that lies on the displayed image.

    Args:
      as_displayed: label if it was drawn on the displayed image; None where its size excludes that.
      as_stored: label, turned upright, if it was drawn on the stored pixels; None as above. At
        least one of the two is given.
      orientation: EXIF orientation of the image, for the error.
      drawn_on: DISPLAYED or STORED decides where both are possible and differ; None refuses.
      origin: files that the error names.

    Returns:
      The label, and whether it was drawn on the stored pixels.

    Raises:
      DeepLabError: both are possible and differ, and `drawn_on` is None.
    """
    if as_stored is None:
        return as_displayed, False
    if as_displayed is None:
        return as_stored, True
    if np.array_equal(as_displayed, as_stored):
        return as_displayed, False
    if drawn_on is None:
        raise DeepLabError(
            f"{origin}: the label fits its image, whose EXIF orientation is {orientation}, both as "
            "the pixels are stored and as viewers display them. Give "
            f"--masks_drawn_on={DISPLAYED} or --masks_drawn_on={STORED} (in Python "
            "masks_drawn_on=…); a tool that ignores EXIF draws on the stored pixels"
        )
    return (as_stored, True) if drawn_on == STORED else (as_displayed, False)
