"""Layout of a picture in its file: pages, bands, opacity and EXIF orientation."""

import io

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.TiffImagePlugin

from deeplab_jax.errors import DeepLabError

# Maximum fraction of pixels with an opacity other than 0 or full; a channel above it is no opacity.
MAX_PARTLY_TRANSPARENT = 0.1
OPACITY_MODES = ("RGBA", "LA", "PA")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Values of the TIFF tags PhotometricInterpretation and ExtraSamples.
TIFF_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
TIFF_OPACITY = (1, 2)
MPF_ENTRIES = 0xB002


def check_one_picture(image: PIL.Image.Image, name: str) -> None:
    """Checks an image that is not decoded yet.

    Raises:
      DeepLabError: it contains several pages, frames or sizes, or bands other than gray or RGB,
        with or without opacity.
    """
    number = getattr(image, "n_frames", 1)
    if number == 1:
        number = len(image.info.get("sizes", ())) or 1
    if number > 1 and not _holds_previews(image):
        raise DeepLabError(
            f"{name}: the {image.format} file holds {number} pictures (pages, frames or sizes); "
            "give one picture per file: export the intended one, or each into its own file"
        )
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        _check_bands(image.tag_v2, name)


def refuse_bands_of_unreadable_tiff(encoded: bytes, name: str) -> None:
    """Raises an error if the bytes are a TIFF whose bands Pillow cannot read."""
    if not encoded.startswith(TIFF_STARTS):
        return
    try:
        size_of_header = 16 if encoded[2] == 43 else 8
        tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(encoded[:size_of_header])
        file = io.BytesIO(encoded)
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(PIL.TiffImagePlugin.BITSPERSAMPLE, (1,))
    except Exception:
        # The caller reports an unreadable file.
        return
    _check_bands(tags, name)
    raise DeepLabError(
        f"{name}: a TIFF with {len(bits)} bands of {bits[0]} bits cannot be read; export it as "
        "gray or RGB with 8 bits"
    )


def check_opacity(opacity: np.ndarray, name: str) -> bool:
    """Checks that the fourth (or second) channel of an image is plausible as opacity.

    Args:
      opacity: uint8 or uint16 [H, W].
      name: name of the image in errors.

    Returns:
      True if some pixels are more transparent than others.

    Raises:
      DeepLabError: it varies like a picture, for example near infrared stored as opacity.
    """
    if opacity.min() == opacity.max():
        return False
    full = np.iinfo(opacity.dtype).max
    partly = np.count_nonzero((opacity > 0) & (opacity < full)) / opacity.size
    if partly > MAX_PARTLY_TRANSPARENT:
        raise DeepLabError(
            f"{name}: its opacity channel is neither 0 nor full in {partly:.0%} of the pixels, so "
            "it holds a further band (for example near infrared), which --bands=all of prepare "
            "keeps, or a soft transparency: drop the channel, or flatten it onto a background"
        )
    return True


def _holds_previews(image: PIL.Image.Image) -> bool:
    """Returns whether all further pictures of an MPO file are smaller copies of the first.

    Cameras write such files, with previews.
    """
    entries = (getattr(image, "mpinfo", None) or {}).get(MPF_ENTRIES, ())
    kinds = [entry["Attribute"]["MPType"] for entry in entries[1:]]
    return bool(kinds) and all(kind.startswith("Large Thumbnail") for kind in kinds)


def _check_bands(tags: PIL.TiffImagePlugin.ImageFileDirectory_v2, name: str) -> None:
    photometric = tags.get(PIL.TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1)
    bands = len(tags.get(PIL.TiffImagePlugin.BITSPERSAMPLE, (1,)))
    bands = max(bands, tags.get(PIL.TiffImagePlugin.SAMPLESPERPIXEL, 1))
    further = bands - TIFF_COLORS.get(photometric, bands)
    extra = tags.get(PIL.TiffImagePlugin.EXTRASAMPLES, ())
    extra = (extra,) if isinstance(extra, int) else tuple(extra)
    # Readers treat one further band of an RGB image without the tag as opacity; `check_opacity`
    # checks its values after decoding.
    is_opacity = further == 1 and (extra[:1] in ((), *((kind,) for kind in TIFF_OPACITY)))
    if further > 0 and not is_opacity:
        raise DeepLabError(
            f"{name}: the TIFF has {bands} bands; images have one (gray) or three (RGB), perhaps "
            "with opacity. Prepare the dataset with --bands=3,2,1 to select three (numbers from 1, "
            "in the order red, green, blue) or with --bands=all to keep all of them"
        )


UPRIGHT = 1
# Pixels on which masks were drawn, where sizes do not decide.
DISPLAYED, STORED = "displayed", "stored"

# Steps along rows and columns that display stored pixels, for EXIF orientations 1 to 4; 5 to 8 are
# the same after transposing.
_STEPS = ((1, 1), (1, -1), (-1, -1), (-1, 1))
_INVERSES = {6: 8, 8: 6}


def orientation_of(image: PIL.Image.Image) -> int:
    """Returns the EXIF orientation, 1..8, of an image that is not decoded yet; 1 if it is invalid.

    It must not be decoded, because then Pillow rotates a TIFF and removes its EXIF orientation.
    """
    orientation = image.getexif().get(PIL.ExifTags.Base.Orientation, UPRIGHT)
    return orientation if orientation in range(1, 9) else UPRIGHT


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation to stored pixels [H, W, …]."""
    rows, columns = _STEPS[(orientation - 1) % 4]
    pixels = np.swapaxes(pixels, 0, 1) if orientation > 4 else pixels
    return np.ascontiguousarray(pixels[::rows, ::columns])


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation; the inverse of `turned`."""
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
    """Returns the label for the displayed image, given the two possible ones.

    Args:
      as_displayed: label that is correct if it was drawn on the displayed image; None if this is
        excluded, because the sizes differ.
      as_stored: upright label that is correct if it was drawn on the stored pixels; None if this
        is excluded. At least one of the two is given.
      orientation: EXIF orientation of the image, for the error.
      drawn_on: DISPLAYED or STORED, which decides if both are possible and differ; None: an error.
      origin: files, for the error.

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
