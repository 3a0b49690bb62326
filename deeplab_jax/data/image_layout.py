"""Checks how an image file stores its picture: format, pages, bands and opacity."""

import io
import sys
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import PIL.Image
import PIL.TiffImagePlugin
from PIL.TiffImagePlugin import COMPRESSION_INFO, IMAGELENGTH, IMAGEWIDTH

from deeplab_jax.errors import DeepLabError

# A channel is opacity only if at most this fraction of its values is neither 0 nor the maximum.
MAX_PARTLY_TRANSPARENT = 0.1
OPACITY_MODES = ("RGBA", "LA", "PA")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Number of color bands by value of the TIFF tag PhotometricInterpretation, and values of the tag
# ExtraSamples that mean opacity.
TIFF_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
TIFF_OPACITY = (1, 2)
# Values of the TIFF tags PhotometricInterpretation and SampleFormat.
CMYK, SIGNED = 5, 2
MPF_ENTRIES = 0xB002
# Tag NewSubfileType of TIFF, and its bits for smaller copies and opacity masks of a page.
NEW_SUBFILE_TYPE, NO_PAGE = 254, 0b101
# Code of the type of 16-bit numbers in TIFF.
SHORT = 3
# Lock for reading or changing Pillow's maximum number of pixels, which is a global variable.
pillow_limit = threading.Lock()


def max_whole_pixels() -> int:
    """Returns the number of pixels above which Pillow refuses to decode an image."""
    with pillow_limit:
        limit = PIL.Image.MAX_IMAGE_PIXELS
    return sys.maxsize if limit is None else 2 * limit


class TiffDirectory(NamedTuple):
    """Directory of a TIFF file (IFD), which describes one picture in the file.

    Attributes:
      offset: position of the directory in the file, in bytes.
      link: position of the link to the next directory, in bytes.
      size: (height, width), in pixels.
      is_page: False for smaller copies (overviews) and opacity masks of a page.
    """

    offset: int
    link: int
    size: tuple[int, int]
    is_page: bool


def tiff_directories(file: BinaryIO) -> list[TiffDirectory]:
    """Returns the directories of a TIFF or BigTIFF, one per picture; [] for other formats.

    If a directory is damaged, the list ends before it.
    """
    file_size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(16)
    if start[:4] not in TIFF_STARTS:
        return []
    order: Literal["little", "big"] = "little" if start.startswith(b"I") else "big"
    for_count, for_entry, for_offset = (8, 20, 8) if 43 in start[2:4] else (2, 12, 4)

    def number(data: bytes) -> int:
        return int.from_bytes(data, order)

    found: dict[int, TiffDirectory] = {}
    offset = number(start[for_offset : 2 * for_offset])
    # Python and some file systems refuse positions far behind the end of a file.
    while 0 < offset < file_size and offset not in found:
        file.seek(offset)
        # A damaged file may state any count.
        count = min(number(file.read(for_count)), 2**16)
        link = offset + for_count + count * for_entry
        entries = file.read(count * for_entry)
        if len(entries) < count * for_entry:
            break
        values = {}
        for at in range(0, len(entries), for_entry):
            tag, kind = number(entries[at : at + 2]), number(entries[at + 2 : at + 4])
            value = entries[at + for_entry - for_offset : at + for_entry]
            values[tag] = number(value[:2] if kind == SHORT else value[:4])
        size = values.get(IMAGELENGTH, 0), values.get(IMAGEWIDTH, 0)
        is_page = not values.get(NEW_SUBFILE_TYPE, 0) & NO_PAGE
        found[offset] = TiffDirectory(offset, link, size, is_page)
        file.seek(link)
        offset = number(file.read(for_offset))
    return list(found.values())


def tiff_pages(file: BinaryIO) -> list[TiffDirectory]:
    """Returns the directories of a TIFF that are pages, or all directories if none is a page."""
    directories = tiff_directories(file)
    return [directory for directory in directories if directory.is_page] or directories


def check_page(page: int | None, number: int, name: str) -> int:
    """Checks the number of the chosen page, and returns the index of this page, from 0.

    Args:
      page: number of the page, from 1; None for the only page.
      number: number of pages in the file.
      name: name of the file in errors.

    Raises:
      DeepLabError: there is no such page, or there are several pages and none is chosen.
    """
    if page is None and number > 1:
        raise DeepLabError(
            f"{name}: the TIFF file contains {number} pictures (pages); choose one with --page=N, "
            f"from 1 to {number} (in Python page=N), or export each picture to a separate file. If "
            "the pages are the bands of one picture, export the picture with all bands in one page"
        )
    if page is not None and not 1 <= page <= number:
        pages = "1 page" if number == 1 else f"{number} pages"
        raise DeepLabError(
            f"{name}: there is no page {page}; the file contains {pages}, numbered from 1"
        )
    return (page or 1) - 1


def select_page(encoded: bytes, page: int | None, name: str) -> bytes:
    """Returns the content of an image file, with only one page if the file is a TIFF.

    Smaller copies and opacity masks of a page, as in cloud-optimized GeoTIFFs, are left out and are
    not counted as pages. Files of other formats are returned unchanged.

    Args:
      encoded: content of an image file.
      page: number of the page, from 1; None for the only page.
      name: name of the file in errors.

    Raises:
      DeepLabError: there is no such page, or there are several pages and `page` is None.
    """
    file = io.BytesIO(encoded)
    pages = tiff_pages(file)
    chosen = check_page(page, len(pages) or 1, name)
    if len(tiff_directories(file)) < 2:
        return encoded
    order: Literal["little", "big"] = "little" if encoded.startswith(b"I") else "big"
    length = 8 if 43 in encoded[2:4] else 4
    selected, (offset, link, *_) = bytearray(encoded), pages[chosen]
    selected[length : 2 * length] = offset.to_bytes(length, order)
    selected[link : link + length] = bytes(length)
    return bytes(selected)


def check_one_picture(image: PIL.Image.Image, name: str) -> None:
    """Checks that a file contains one gray or color picture, with or without opacity.

    Args:
      image: image that is not decoded yet.
      name: name of the file in errors.

    Raises:
      DeepLabError: the file contains several pages or frames, or the same picture in several sizes
        (icons), or bands other than gray, colors and opacity.
    """
    number = max(getattr(image, "n_frames", 1), len(image.info.get("sizes", ())))
    if number > 1 and not _holds_previews(image):
        raise DeepLabError(
            f"{name}: the {image.format} file contains {number} pictures (pages, frames or sizes); "
            "export each picture to a separate file"
        )
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        _check_bands(image.tag_v2, name)


def refuse_bands_of_unreadable_tiff(encoded: bytes, name: str) -> None:
    """Raises an error for a TIFF, with its compression, or the number and the bits of its bands.

    Must be called only for a file that Pillow cannot open. There is no error for other formats, or
    if the tags cannot be read.

    Raises:
      DeepLabError: the file is a TIFF with readable tags.
    """
    if not encoded.startswith(TIFF_STARTS):
        return
    try:
        size_of_header = 16 if 43 in encoded[2:4] else 8  # The number 43 identifies a BigTIFF.
        tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(encoded[:size_of_header])
        file = io.BytesIO(encoded)
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(PIL.TiffImagePlugin.BITSPERSAMPLE, (1,))
    except Exception:  # The caller reports the unreadable file.
        return
    # Pillow reads a truncated directory as empty, without an exception.
    if IMAGEWIDTH not in tags:
        return
    _check_bands(tags, name)
    if (code := tags.get(PIL.TiffImagePlugin.COMPRESSION, 1)) not in COMPRESSION_INFO:
        raise DeepLabError(
            f"{name}: the TIFF has the compression {code}, which cannot be read; convert it, for "
            "example with `gdal_translate -co COMPRESS=DEFLATE`"
        )
    raise DeepLabError(
        f"{name}: a TIFF with {len(bits)} bands of {bits[0]} bits cannot be read; export it as "
        "gray or RGB with 8 bits"
    )


def is_deep(image: PIL.Image.Image) -> bool:
    """Returns whether the file of an image stores more than 8 bits per channel."""
    # Pillow does not report the bits of a TIFF with separate planes.
    bits = tiff_tag(image, PIL.TiffImagePlugin.BITSPERSAMPLE, (8,))
    return image.mode[0] in "IF" or ";16" in image.info["stored_as"] or max(bits) > 8


def refuse_signed_bytes(image: PIL.Image.Image, name: str) -> None:
    """Raises an error for a TIFF of signed 8-bit numbers, which Pillow reads as unsigned.

    Args:
      image: decoded image of at most 8 bits per channel.
      name: name of the file in errors.

    Raises:
      DeepLabError: the image is a TIFF of signed numbers.
    """
    if SIGNED in tiff_tag(image, PIL.TiffImagePlugin.SAMPLEFORMAT, ()):
        raise DeepLabError(
            f"{name}: the TIFF contains signed 8-bit numbers; convert it to unsigned ones, for "
            "example with `gdal_translate -ot Byte -scale LOW HIGH 0 255`"
        )


def tiff_tag(image: PIL.Image.Image, tag: int, default: Any) -> Any:
    """Returns the value of a TIFF tag; `default` if the image lacks the tag or is not a TIFF."""
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        return image.tag_v2.get(tag, default)
    return default


def check_opacity(opacity: np.ndarray, name: str) -> bool:
    """Checks that the last channel of an image contains opacity (alpha), and not a further band.

    Args:
      opacity: last channel, uint8 or uint16 [H, W].
      name: name of the image in errors.

    Returns:
      True if some pixels are more transparent than others.

    Raises:
      DeepLabError: more than 10 % of the values are neither 0 nor the maximum of the dtype, as in a
        near-infrared band that is stored as opacity.
    """
    if opacity.min() == opacity.max():
        return False
    refuse_partly_transparent(partly_transparent(opacity) / opacity.size, name)
    return True


def partly_transparent(opacity: np.ndarray) -> int:
    """Returns the number of pixels that are neither fully transparent nor fully opaque."""
    return int(np.count_nonzero((opacity > 0) & (opacity < np.iinfo(opacity.dtype).max)))


def refuse_partly_transparent(partly: float, name: str) -> None:
    """Raises an error if too many pixels are partly transparent.

    Many such pixels show that the opacity channel contains a further band, and not opacity.

    Args:
      partly: fraction of pixels that are neither fully transparent nor fully opaque.
      name: name of the image in errors.

    Raises:
      DeepLabError: the fraction is above 0.1.
    """
    if partly > MAX_PARTLY_TRANSPARENT:
        raise DeepLabError(
            f"{name}: {partly:.0%} of the pixels are partly transparent. If the opacity (alpha) "
            "channel contains a further band, such as near infrared, use `prepare folder` with "
            "--bands=all; otherwise remove the channel, or flatten the image onto a background"
        )


def _holds_previews(image: PIL.Image.Image) -> bool:
    """Returns whether an MPO file has further pictures that all are previews or a gain map.

    Cameras store previews with the picture type "Large Thumbnail". They store the gain map of an
    HDR photograph, which is smaller than the photograph, with the type "Undefined".
    """
    entries = (getattr(image, "mpinfo", None) or {}).get(MPF_ENTRIES, ())
    kinds = [entry["Attribute"]["MPType"] for entry in entries[1:]]
    width, height = image.size
    for frame, kind in enumerate(kinds, 1):
        image.seek(frame)
        is_smaller = image.width < width and image.height < height
        image.seek(0)
        if not (kind.startswith("Large Thumbnail") or (kind == "Undefined" and is_smaller)):
            return False
    return bool(kinds)


def _check_bands(tags: PIL.TiffImagePlugin.ImageFileDirectory_v2, name: str) -> None:
    bits = tags.get(PIL.TiffImagePlugin.BITSPERSAMPLE, (1,))
    bands = max(len(bits), tags.get(PIL.TiffImagePlugin.SAMPLESPERPIXEL, 1))
    extra = tags.get(PIL.TiffImagePlugin.EXTRASAMPLES, ())
    photometric = tags.get(PIL.TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1)
    check_bands(photometric, bands, (extra,) if isinstance(extra, int) else tuple(extra), name)
    if photometric == CMYK and max(bits) > 8:
        raise DeepLabError(
            f"{name}: the TIFF has CMYK colors of more than 8 bits; convert it to RGB"
        )


def check_bands(photometric: int, bands: int, extra: Sequence[int], name: str) -> None:
    """Checks that the bands of a TIFF are gray or colors, with or without opacity.

    Args:
      photometric: value of the tag PhotometricInterpretation.
      bands: number of bands.
      extra: values of the tag ExtraSamples.
      name: name of the file in errors.

    Raises:
      DeepLabError: the TIFF has bands other than gray, colors and opacity.
    """
    further = bands - TIFF_COLORS.get(photometric, bands)
    # Without the tag ExtraSamples, readers treat a fourth band of an RGB image as opacity.
    # `check_opacity` checks its values after decoding.
    is_opacity = further == 1 and (not extra or extra[0] in TIFF_OPACITY)
    if further > 0 and not is_opacity:
        raise DeepLabError(
            f"{name}: the TIFF has {bands} bands; expected one (gray) or three (RGB), with or "
            "without opacity. Use `prepare folder` with --bands=3,2,1 to select three (numbers "
            "from 1, in the order red, green, blue) or with --bands=all to keep all of them"
        )
