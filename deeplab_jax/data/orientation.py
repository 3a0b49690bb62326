"""EXIF orientation of images, and of the masks that were drawn on them."""

import contextlib

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from deeplab_jax.errors import DeepLabError

UPRIGHT = 1
# Masks may have been drawn on the image as viewers display it, with its EXIF orientation applied,
# or on the pixels as they are stored in the file.
DISPLAYED, STORED = "displayed", "stored"

# Steps along rows and columns that turn stored pixels into the displayed image, for the EXIF
# orientations 1 to 4. Orientations 5 to 8 have the same steps after transposing.
_STEPS = ((1, 1), (1, -1), (-1, -1), (-1, 1))
_INVERSES = {6: 8, 8: 6}


def orientation_of(image: PIL.Image.Image) -> int:
    """Returns the EXIF orientation of an image, 1..8; 1 if it is missing, invalid or damaged.

    Args:
      image: image that is not decoded yet, because Pillow removes the EXIF orientation of a TIFF
        when it decodes the image.
    """
    try:
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation, UPRIGHT)
    # On damaged EXIF blocks, Pillow raises exceptions of several types.
    except Exception:
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Applies the EXIF orientation of an image in place, and returns the image."""
    # If the encoded EXIF block is present, Pillow encodes all tags again, which fails if one of
    # them has a value of the wrong type. `getexif` keeps the parsed tags.
    with contextlib.suppress(Exception):
        image.getexif()
    for key in ("exif", "Raw profile type exif"):
        image.info.pop(key, None)
    PIL.ImageOps.exif_transpose(image, in_place=True)
    return image


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation, 1..8: converts stored pixels [H, W, …] to displayed pixels."""
    rows, columns = _STEPS[(orientation - 1) % 4]
    pixels = np.swapaxes(pixels, 0, 1) if orientation > 4 else pixels
    return np.ascontiguousarray(pixels[::rows, ::columns])


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Converts displayed pixels [H, W, …] to stored pixels; the inverse of `turned`."""
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
    """Selects the label that fits an image with an EXIF orientation.

    An annotation tool may have drawn the label on the displayed image or on the stored pixels.

    Args:
      as_displayed: label on the assumption that it was drawn on the displayed image; None if its
        size contradicts this.
      as_stored: label on the assumption that it was drawn on the stored pixels, after applying the
        EXIF orientation of the image; None if its size contradicts this. At least one of
        `as_displayed` and `as_stored` is given.
      orientation: EXIF orientation of the image, for the error.
      drawn_on: `displayed` or `stored`, the label to select if both are given and differ.
      origin: names of the files, for the error.

    Returns:
      The label in the orientation of the displayed image, and whether it was drawn on the stored
      pixels.

    Raises:
      DeepLabError: both labels are given and differ, and `drawn_on` is None.
    """
    if as_displayed is None:
        if as_stored is None:
            raise ValueError("as_displayed or as_stored must be a label; both are None")
        return as_stored, True
    if as_stored is None or np.array_equal(as_displayed, as_stored):
        return as_displayed, False
    if drawn_on is None:
        raise DeepLabError(
            f"{origin}: the label has the size of both the stored and the displayed image (EXIF "
            f"orientation {orientation}). State whether the labels were drawn on the displayed or "
            f"on the stored image, with --masks_drawn_on={DISPLAYED} or --masks_drawn_on={STORED} "
            "(in Python masks_drawn_on=…). A tool that ignores EXIF draws on the stored image"
        )
    return (as_stored, True) if drawn_on == STORED else (as_displayed, False)
