"""Reads and checks image files, and encodes them for prepared datasets."""

import contextlib
import hashlib
import io
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.PngImagePlugin

from deeplab_jax.data.bands import (
    bands_of,
    check_pixel_type,
    deep_planes,
    is_npy,
    read_npy,
    read_tiff,
    select,
    white_is_zero,
)
from deeplab_jax.data.codecs import encode_bands, encode_png
from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.data.image_layout import (
    OPACITY_MODES,
    TIFF_STARTS,
    check_one_picture,
    check_opacity,
    is_deep,
    max_whole_pixels,
    pillow_limit,
    refuse_bands_of_unreadable_tiff,
    refuse_signed_bytes,
    select_page,
    tiff_pages,
)
from deeplab_jax.data.intensity import gap_notes, own_range, scaled_to_bytes
from deeplab_jax.data.orientation import UPRIGHT, orientation_of, turned, upright
from deeplab_jax.data.volumes import refuse_volume
from deeplab_jax.errors import DeepLabError
from deeplab_jax.listing import absence

# Number of pixels above which threads process one image at a time.
LARGE_PIXELS = 16_000_000
_large_images = threading.Lock()
# Pillow refuses PNGs with larger metadata, such as color profiles; its default is 1 MiB.
PIL.PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20
# Remarks for the user, see `StorableImage.notes`.
TRANSPARENT = "image has transparent pixels; the colors stored under them are used"
OWN_RANGE = (
    "image of more than 8 bits is scaled by its own range of values; "
    "give --intensity_range to scale all images equally"
)


def read_image(
    source: Path | bytes,
    *,
    intensity_range: tuple[float, float] | None = None,
    name: str = "",
    bands: Bands = RGB,
    page: int | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Reads an image and applies its EXIF orientation.

    Args:
      source: path of the image, or its encoded bytes.
      intensity_range: values of 16-bit and float images that are mapped linearly to 0 and 255
        (default: the smallest range that contains 0 and all values of the image).
      name: name of the image in errors, used if `source` contains encoded bytes.
      bands: bands of the result (default: 8-bit RGB).
      page: number of the page to read from a TIFF, from 1; None requires that the TIFF has only
        one page.
      max_pixels: maximum number of pixels; None applies Pillow's limit of 179 million pixels.
        Reading an RGB image requires about 8 bytes of memory per pixel.

    Returns:
      Pixels [H, W, C]; `bands` states C and the dtype. For RGB, gray images become three equal
      channels, and transparent pixels have their stored colors.

    Raises:
      DeepLabError: the file is missing, empty, truncated, too large or not an image, or it contains
        several pictures or other bands than `bands`.
    """
    encoded, name = read_bytes(source, name)
    encoded = select_page(encoded, page, name)
    if bands.are_pictures and not is_npy(encoded):
        return _to_rgb(open_image(encoded, name, max_pixels), encoded, intensity_range)[0]
    pixels, _ = _all_bands(encoded, name, page, max_pixels)
    return _as_image(select(pixels, bands, name), bands, intensity_range)


def file_bands(path: Path, page: int | None = None) -> Bands:
    """Returns the number and the dtype of all bands in an image file.

    Args:
      path: image file.
      page: number of the page of a TIFF, from 1; None requires that the TIFF has only one page.

    Raises:
      DeepLabError: the file is missing, empty, truncated, too large or not an image, or it contains
        several pictures.
    """
    encoded, name = read_bytes(path)
    return bands_of(_all_bands(select_page(encoded, page, name), name, page)[0])


def _all_bands(
    encoded: bytes, name: str, page: int | None, max_pixels: int | None = None
) -> tuple[np.ndarray, int]:
    """Returns all bands of an image file, [H, W, C], and the EXIF orientation of the file, 1..8.

    The EXIF orientation has been applied to the bands.

    Args:
      encoded: content of the file, as `select_page` returns it.
      name: name of the file, for errors.
      page: number of the page that was selected; None if the user chose no page.
      max_pixels: maximum number of pixels; None applies Pillow's limit.
    """
    if is_npy(encoded):
        return read_npy(encoded, name, max_pixels), UPRIGHT
    if encoded.startswith(TIFF_STARTS):
        pixels, orientation = read_tiff(encoded, name, page is not None, max_pixels)
        return turned(pixels, orientation), orientation
    image = open_image(encoded, name, max_pixels)
    orientation = image.info["orientation"]
    if is_deep(image):
        return turned(np.stack(deep_planes(image, encoded), axis=-1), orientation), orientation
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.atleast_3d(np.array(upright(image))), orientation


def _as_image(
    pixels: np.ndarray, bands: Bands, intensity_range: tuple[float, float] | None
) -> np.ndarray:
    """Returns pixels [H, W, C] in the dtype of `bands`.

    Pixels of another dtype are converted to 8-bit RGB. The two values in `intensity_range` are
    mapped linearly to 0 and 255 (default: smallest range that contains 0 and all pixel values).
    """
    if pixels.dtype == bands.dtype:
        return pixels
    planes = list(np.moveaxis(pixels, -1, 0))
    return scaled_to_bytes(planes, intensity_range or own_range(planes))


class StorableImage(NamedTuple):
    """An image in the form in which prepared datasets store it.

    Attributes:
      encoded: encoded image. RGB datasets store a JPEG or PNG unchanged if it is 8-bit gray or RGB
        without EXIF orientation and the user selected no bands. They store other images as PNGs.
        Datasets with other bands store a gray PNG with the bands stacked vertically.
      size: (height, width) after applying the EXIF orientation.
      orientation: EXIF orientation of the file, 1..8.
      digest: hash of the pixels after applying the EXIF orientation.
      notes: remarks for the user: `TRANSPARENT`, if some pixels are transparent; `OWN_RANGE`, and
        perhaps `intensity.GAP`, if the values were mapped to 0..255 without an intensity range.
    """

    encoded: bytes
    size: tuple[int, int]
    orientation: int
    digest: bytes
    notes: tuple[str, ...]


def storable_image(
    source: Path | bytes,
    intensity_range: tuple[float, float] | None = None,
    *,
    name: str = "",
    bands: Bands = RGB,
    first: Path | None = None,
    page: int | None = None,
) -> StorableImage:
    """Reads an image file and encodes the image for a prepared dataset.

    Args:
      source: path of the image, or its encoded bytes.
      intensity_range: values of 16-bit and float images that are mapped linearly to 0 and 255
        (default: the smallest range that contains 0 and all values of the image).
      name: name of the image in errors, used if `source` contains encoded bytes.
      bands: bands of the dataset (default: 8-bit RGB).
      first: image file of the dataset that determined `bands`; None if no file did. Errors about
        an image with other bands name this file.
      page: number of the page to read from a TIFF, from 1; None requires that the TIFF has only
        one page.

    Raises:
      DeepLabError: the file is missing, empty, truncated, too large or not an image, or it contains
        several pictures or other bands than `bands`.
    """
    encoded, name = read_bytes(source, name)
    encoded = select_page(encoded, page, name)
    if not bands.are_pictures or is_npy(encoded):
        pixels, orientation = _all_bands(encoded, name, page)
        if not bands.are_rgb:
            check_pixel_type(bands_of(pixels), name)
        whose = f"the first image, {first}, has" if first else "without --bands, prepare expects"
        pixels = select(pixels, bands, name, whose)
        scaled = pixels.dtype != bands.dtype and intensity_range is None
        pixels = _as_image(pixels, bands, intensity_range)
        notes = (OWN_RANGE, *gap_notes(pixels)) if scaled else ()
        encoded = encode_png(pixels) if bands.are_rgb else encode_bands(pixels)
        return StorableImage(encoded, pixels.shape[:2], orientation, _digest(pixels), notes)
    image = open_image(encoded, name)
    orientation = image.info["orientation"]
    plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB") and not is_deep(image)
    pixels, transparent = _to_rgb(image, encoded, intensity_range)
    if not plain or orientation != UPRIGHT:
        encoded = encode_png(pixels)
    scaled = is_deep(image) and intensity_range is None
    notes = (TRANSPARENT,) * transparent + ((OWN_RANGE, *gap_notes(pixels)) if scaled else ())
    return StorableImage(encoded, pixels.shape[:2], orientation, _digest(pixels), notes)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(pixels.data, digest_size=16, person=b"%dx%d" % pixels.shape[:2]).digest()


def read_bytes(source: Path | bytes, name: str = "") -> tuple[bytes, str]:
    """Returns the encoded image, and its name for error messages.

    Args:
      source: path of the file, which becomes the name of the image; or the encoded bytes.
      name: name of the image if `source` contains encoded bytes (default: "image").

    Raises:
      DeepLabError: the file does not exist or cannot be read.
    """
    if isinstance(source, bytes):
        return source, name or "image"
    try:
        return source.read_bytes(), str(source)
    except FileNotFoundError:
        raise DeepLabError(f"{source}: {absence(source)}") from None
    except OSError as error:
        raise DeepLabError(f"{source}: cannot be read: {error.strerror}") from error


def image_size(path: Path, page: int | None = None) -> tuple[int, int]:
    """Returns (height, width) in pixels from the header of an image file.

    If the header cannot be read, or there is no such page, returns (0, 0).

    Args:
      path: image file of any size.
      page: number of the page of a TIFF, from 1; None: the first page.
    """
    try:
        with path.open("rb") as file:
            if pages := tiff_pages(file):
                return pages[(page or 1) - 1].size
            if path.suffix.lower() == ".npy":
                height, width, *_ = np.load(path, mmap_mode="r").shape
                return height, width
            with _unlimited_pillow(), PIL.Image.open(file) as image:
                return image.height, image.width
    # The error is reported when the whole file is read.
    except Exception:
        return 0, 0


@contextlib.contextmanager
def _unlimited_pillow() -> Iterator[None]:
    """Disables Pillow's global limit on the number of pixels until the `with` block ends."""
    with pillow_limit:
        limit = PIL.Image.MAX_IMAGE_PIXELS
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def open_image(encoded: bytes, name: str, max_pixels: int | None = None) -> PIL.Image.Image:
    """Decodes all pixels of an image file.

    Pillow applies the EXIF orientation of a TIFF while it decodes the file. In other formats, the
    EXIF orientation is not applied.

    Args:
      encoded: content of the file.
      name: name of the file in errors.
      max_pixels: maximum number of pixels; None applies Pillow's limit of 179 million pixels.

    Raises:
      DeepLabError: the file is empty, truncated, too large or not an image, or it has several
        pictures or bands other than gray, colors and opacity.
    """
    if not encoded:
        raise DeepLabError(f"{name}: the file is empty")
    refuse_volume(encoded, name)
    limit = max_whole_pixels() if max_pixels is None else max_pixels
    try:
        with contextlib.nullcontext() if max_pixels is None else _unlimited_pillow():
            image: PIL.Image.Image = PIL.Image.open(io.BytesIO(encoded))
            if image.width * image.height > limit:
                raise PIL.Image.DecompressionBombError
            # `verify` checks all chunks of a PNG; decoding ends after the pixels.
            image.verify()
            image = PIL.Image.open(io.BytesIO(encoded))
            image.info["name"] = name
            check_one_picture(image, name)
            # Decoding removes the information on how the pixels were stored.
            image.info["stored_as"] = str(image.tile)
            image.info["orientation"] = orientation_of(image)
            image.load()
        # Pillow converts gray with premultiplied opacity to no other mode.
        image = image.convert("LA") if image.mode == "La" else image
    except DeepLabError:
        raise
    except PIL.UnidentifiedImageError:
        refuse_bands_of_unreadable_tiff(encoded, name)
        raise DeepLabError(
            f"{name}: not an image, or in a format that cannot be read; convert it to PNG"
        ) from None
    except PIL.Image.DecompressionBombError:
        remedy = (
            "cut it into smaller images, or predict it in tiles, with `predict --tile=1025x1025` "
            "(without --crf, --probabilities, --overlay_bands and --submission)"
            if max_pixels is None
            else "convert it to a tiled TIFF, which --tile can read in parts, for example with "
            "`gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=YES`"
        )
        raise DeepLabError(f"{name}: more than {limit:,} pixels; {remedy}") from None
    # On damaged files, Pillow's decoders raise exceptions of many types.
    except Exception as error:
        raise DeepLabError(f"{name}: truncated or damaged image ({error})") from error
    return image


def _to_rgb(
    image: PIL.Image.Image, encoded: bytes, intensity_range: tuple[float, float] | None
) -> tuple[np.ndarray, bool]:
    """Converts an image to uint8 [H, W, 3] RGB with its EXIF orientation applied.

    Args:
      image: decoded image.
      encoded: content of the image file. It is decoded again if the file stores more than 8 bits
        per channel.
      intensity_range: values that become 0 and 255 if the file stores more than 8 bits per channel;
        None: the range of the image, extended to include 0.

    Returns:
      The image, and whether some pixels are more transparent than others.
    """
    name = image.info["name"]
    if is_deep(image):
        return _deep_to_rgb(image, encoded, intensity_range, name)
    refuse_signed_bytes(image, name)
    # Pillow warns if an image with a transparent palette color is converted directly to RGB.
    if "transparency" in image.info:
        image = image.convert("RGBA")
    has_opacity = image.mode in OPACITY_MODES
    transparent = has_opacity and check_opacity(np.asarray(image.getchannel("A")), name)
    image = upright(image)
    # `convert` copies the image even if its mode is already RGB.
    return np.array(image if image.mode == "RGB" else image.convert("RGB")), transparent


@contextlib.contextmanager
def one_large_at_a_time(*paths: Path) -> Iterator[None]:
    """Limits memory: only one `with` block for large images runs at a time.

    The images are large if the given files together have more than 16 million pixels. Blocks for
    smaller images run concurrently.
    """
    large = sum(math.prod(image_size(path)) for path in paths) > LARGE_PIXELS
    with _large_images if large else contextlib.nullcontext():
        yield


def _deep_to_rgb(
    image: PIL.Image.Image, encoded: bytes, intensity_range: tuple[float, float] | None, name: str
) -> tuple[np.ndarray, bool]:
    """Maps an image of more than 8 bits per channel linearly to uint8 RGB.

    Returns:
      [H, W, 3], and whether some pixels are more transparent than others.
    """
    planes = deep_planes(image, encoded)
    transparent = len(planes) == 4 and check_opacity(planes[3], name)
    result = scaled_to_bytes(planes[:3], intensity_range or own_range(planes[:3]))
    if white_is_zero(image):
        # Pillow inverts only images of 8 bits. Ranges refer to the stored values.
        np.invert(result, out=result)
    # For a TIFF, all decoders have already applied the EXIF orientation.
    if image.format != "TIFF":
        result = turned(result, image.info["orientation"])
    return result, transparent
