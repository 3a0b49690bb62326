"""Reads images with any number of bands, and selects bands."""

import contextlib
import functools
import io
import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import PIL.Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION

from deeplab_jax.data.codecs import MAX_PIXELS
from deeplab_jax.data.descriptors import Bands
from deeplab_jax.data.image_layout import max_whole_pixels, tiff_tag
from deeplab_jax.data.orientation import turned
from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra
from deeplab_jax.pixels import LARGEST_PIXEL

NPY_START = b"\x93NUMPY"
ORIENTATION_TAG = 274
# Values of the TIFF tags PlanarConfiguration and PhotometricInterpretation.
SEPARATE_PLANES, WHITE_IS_ZERO = 2, 0
# An array [A, B, C] is taken to be [bands, H, W] if A is at most this number, and B and C are
# larger.
FEW_ROWS = 16


def is_npy(encoded: bytes) -> bool:
    """Returns whether the bytes are the content of an NPY file."""
    return encoded.startswith(NPY_START)


def read_tiff(
    encoded: bytes, name: str, page_is_chosen: bool = False, max_pixels: int | None = None
) -> tuple[np.ndarray, int]:
    """Reads all bands of a TIFF.

    Overviews (reduced copies of the picture) and opacity masks in the file are ignored.

    Args:
      encoded: content of the file.
      name: name of the file, for errors.
      page_is_chosen: whether the user chose a page, and `select_page` removed the others (default:
        False). In this case, the number of pictures in ImageJ's metadata is ignored, because the
        metadata still counts all pages.
      max_pixels: maximum number of pixels; None applies Pillow's limit of 179 million pixels.

    Returns:
      The stored values [H, W, C], to which the EXIF orientation has not been applied; and the EXIF
      orientation, 1..8.

    Raises:
      DeepLabError: the file is damaged or too large, contains several pictures or axes other than
        rows, columns and bands, or requires a package that is not installed.
    """
    with _opened_tiff(encoded, name) as file:
        page = _only_page(file, name, page_is_chosen)
        if page.axes not in ("YX", "YXS", "SYX"):
            raise DeepLabError(
                f"{name}: the TIFF has the axes {page.axes}; give an image with the axes YX, YXS "
                "or SYX (rows, columns, bands)"
            )
        _check_size(page.imagelength, page.imagewidth, page.samplesperpixel, name, max_pixels)
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        if any(size and start + size > len(encoded) for start, size in segments):
            raise DeepLabError(f"{name}: truncated or damaged image (the pixel data is incomplete)")
        pixels = page.asarray()
        if pixels.ndim != len(page.axes) or not pixels.size:
            raise DeepLabError(f"{name}: truncated or damaged image (it has no pixels)")
        tag = page.tags.get(ORIENTATION_TAG)
    pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else np.atleast_3d(pixels)
    orientation = int(tag.value) if tag is not None else 1
    return _native(pixels), orientation if orientation in range(1, 9) else 1


@contextlib.contextmanager
def _opened_tiff(encoded: bytes, name: str) -> Iterator[Any]:
    """Yields a `tifffile.TiffFile`, and converts the errors of tifffile to a DeepLabError."""
    tifffile = _import_tifffile()
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            yield file
    except DeepLabError:
        raise
    # On damaged files, tifffile raises exceptions of many types.
    except Exception as error:
        if "imagecodecs" in str(error):
            raise DeepLabError(
                f"{name}: the compression of this TIFF requires imagecodecs; run pip install "
                "'deeplab_jax[tiff]'"
            ) from error
        reason = " ".join(str(error).split())
        raise DeepLabError(f"{name}: truncated or damaged image ({reason})") from error


@functools.cache
def _import_tifffile() -> ModuleType:
    # The log of tifffile repeats the raised errors, and warns about tags that are not used here.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return import_extra("tifffile", "tiff", "a TIFF with bands")


def _only_page(file: Any, name: str, page_is_chosen: bool) -> Any:
    pages = [page for page in file.pages if not (page.is_reduced or page.is_mask)]
    number = len(pages)
    if file.is_imagej and not page_is_chosen:
        # ImageJ describes a stack above 4 GB by one page and the number of pictures.
        number = max(number, int((file.imagej_metadata or {}).get("images", 1)))
    if number != 1:
        raise DeepLabError(
            f"{name}: the TIFF file contains {number} pictures (pages); give one picture per file, "
            "with its bands in one page"
        )
    return pages[0]


def deep_planes(image: PIL.Image.Image, encoded: bytes) -> list[np.ndarray]:
    """Decodes a gray or RGB image of more than 8 bits per channel at its full bit depth.

    Args:
      image: image as `images.open_image` returns it.
      encoded: content of the file.

    Returns:
      A list of arrays [H, W]: gray alone, or red, green, blue and optionally opacity. The EXIF
      orientation of a TIFF has been applied to them. The caller must apply that of other files, and
      must invert the gray levels if `white_is_zero` is True.

    Raises:
      DeepLabError: the file cannot be decoded, for example because the compression of a TIFF
        requires a package that is not installed.
    """
    decoded, is_color = None, len(image.getbands()) > 1
    # OpenCV and Pillow read wrong values from separate planes of more than 8 bits.
    if not is_color or tiff_tag(image, PLANAR_CONFIGURATION, 1) != SEPARATE_PLANES:
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None and is_color:
        # Pillow would reduce colors to 8 bits.
        pixels, orientation = read_tiff(encoded, image.info["name"])
        return list(np.moveaxis(turned(pixels, orientation), -1, 0))
    channels = np.atleast_3d(np.asarray(image) if decoded is None else decoded)
    planes = list(np.moveaxis(channels, -1, 0))
    # OpenCV's channels are blue, green, red and optionally opacity.
    return [*planes[2::-1], *planes[3:]] if len(planes) > 2 else planes[:1]


def white_is_zero(image: PIL.Image.Image) -> bool:
    """Returns whether an image is a TIFF in which the value 0 represents white."""
    return bool(tiff_tag(image, PHOTOMETRIC_INTERPRETATION, 1) == WHITE_IS_ZERO)


def read_npy(encoded: bytes, name: str, max_pixels: int | None = None) -> np.ndarray:
    """Returns the array [H, W, C] of an NPY file; an array [H, W] becomes [H, W, 1].

    Args:
      encoded: content of the file.
      name: name of the file, for errors.
      max_pixels: maximum number of pixels; None applies Pillow's limit of 179 million pixels.

    Raises:
      DeepLabError: the file is damaged or contains Python objects; or its array is empty, is too
        large, does not have two or three axes, or has the bands on the first axis, [C, H, W].
    """
    try:
        pixels = np.load(io.BytesIO(encoded), allow_pickle=False)
    # On damaged headers, NumPy raises exceptions of many types.
    except Exception as error:
        raise DeepLabError(f"{name}: truncated or damaged array ({error})") from error
    shape = list(pixels.shape)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise DeepLabError(f"{name}: the array has the shape {shape}; give [height, width, bands]")
    if pixels.ndim == 3 and shape[0] <= FEW_ROWS < min(shape[1:]):
        raise DeepLabError(
            f"{name}: the array has the shape {shape}, with the bands first; give [height, width, "
            "bands], for example the result of numpy.moveaxis(array, 0, -1)"
        )
    _check_size(shape[0], shape[1], shape[2] if pixels.ndim == 3 else 1, name, max_pixels)
    return _native(np.atleast_3d(pixels))


def _check_size(height: int, width: int, count: int, name: str, max_pixels: int | None) -> None:
    limit = max_whole_pixels() if max_pixels is None else max_pixels
    if height * width > limit:
        raise DeepLabError(f"{name}: more than {limit:,} pixels; cut the image into tiles")
    if height * width * count > MAX_PIXELS:
        raise DeepLabError(
            f"{name}: {count} bands of {height}x{width} pixels are more than {MAX_PIXELS:,} "
            "values; cut the image into tiles"
        )


def _native(pixels: np.ndarray) -> np.ndarray:
    """Returns the pixels as a contiguous array in the byte order of this machine."""
    return np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))


def bands_of(pixels: np.ndarray) -> Bands:
    """Returns the number and the dtype of the bands of an image [H, W, C]."""
    return Bands(pixels.shape[2], pixels.dtype.name)


def select(
    pixels: np.ndarray, bands: Bands, name: str, whose: str = "the model takes"
) -> np.ndarray:
    """Selects those bands of a file that a model or a dataset uses.

    Args:
      pixels: all bands of the file, [H, W, C].
      bands: bands that the model or the dataset uses. `bands.chosen` lists their numbers in the
        file, from 1; None: the file contains only these bands.
      name: name of the file, for errors.
      whose: words that precede the expected bands in error messages, such as "the model takes".

    Returns:
      [H, W, bands.count] in the dtype of `bands`. If `bands.chosen` lists bands to be converted to
      RGB (`bands.are_rgb`), the dtype is that of the file.

    Raises:
      DeepLabError: a number in `bands.chosen` is larger than the number of bands in the file;
        `bands.chosen` is None, and the file does not have `bands.count` bands; or the dtype of the
        file is not `bands.dtype`, and the bands are not to be converted to RGB.
    """
    found = bands_of(pixels)
    if bands.chosen is None and found.count != bands.count:
        raise DeepLabError(
            f"{name}: the file has {found}, but {whose} {bands}; give files with {bands}"
        )
    if bands.chosen is not None and max(bands.chosen) > found.count:
        raise DeepLabError(
            f"{name}: there is no band {max(bands.chosen)}; the file has {found}, numbered from 1, "
            f"but bands {','.join(map(str, bands.chosen))} were selected with prepare --bands"
        )
    becomes_rgb = bands.are_rgb and bands.chosen is not None
    if not becomes_rgb and found.dtype != bands.dtype:
        raise DeepLabError(
            f"{name}: the file has {found}, but {whose} {bands}; give files of {bands.dtype}"
        )
    if bands.chosen is None:
        return pixels
    return np.ascontiguousarray(pixels[..., [number - 1 for number in bands.chosen]])


def check_pixel_type(bands: Bands, name: str) -> None:
    """Checks that a prepared dataset can store the bands of an image without loss.

    Args:
      bands: bands of the image.
      name: name of the image file, for errors.

    Raises:
      DeepLabError: the dtype of the bands is neither uint8 nor uint16.
    """
    if bands.dtype not in LARGEST_PIXEL:
        raise DeepLabError(
            f"{name}: the file has {bands}; bands must be {' or '.join(LARGEST_PIXEL)}. Rescale "
            "them, for example with `gdal_translate -ot UInt16 -scale LOW HIGH 0 65535`"
        )
