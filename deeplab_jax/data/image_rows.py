"""Reads images by rows. Large TIFFs are decoded in parts, to limit memory."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from deeplab_jax.data.image_layout import (
    TIFF_STARTS,
    check_bands,
    check_page,
    max_whole_pixels,
    partly_transparent,
    refuse_partly_transparent,
)
from deeplab_jax.data.images import LARGE_PIXELS, image_size, read_image
from deeplab_jax.data.intensity import BLOCK_ROWS, own_range, to_bytes
from deeplab_jax.data.orientation import UPRIGHT
from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra, quiet_logger

# Maximum number of pixels, 20,000 x 20,000, of an image that must be decoded whole, such as a PNG.
WHOLE_PIXELS = 400_000_000
# Values of the TIFF tags Compression, PhotometricInterpretation and ExtraSamples.
JPEG = 7
WHITE_IS_ZERO, GRAY, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
PREMULTIPLIED = 1
# Tags of a GeoTIFF that state the geographic position of its pixels.
GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
# Commands that make a TIFF readable by rows. gdal_translate ignores the tag Orientation.
CONVERT = "gdal_translate{} -co TILED=YES -co BIGTIFF=YES"
TURN = "vips autorot IN.tif 'OUT.tif[tile,bigtiff]'"
# NumPy's names, without byte order, of the dtypes of TIFF samples that can be read by rows.
SAMPLES = ("u1", "u2", "i2", "f4")

# Size of an image, (height, width) in pixels.
Size = tuple[int, int]
Tags = tuple[tuple[Any, ...], ...]


class ImageRows(Protocol):
    """An opened image that is read by rows.

    Attributes:
      size: (height, width) in pixels.
      georeference: TIFF tags of the geographic position, in the form of the argument `extratags` of
        tifffile: (code, dtype, count, value, whether only the first page has the tag).
    """

    size: Size
    georeference: Tags

    def read(self, first: int, last: int) -> np.ndarray:
        """Returns the rows [first, last) of the image, uint8 [last - first, W, 3] RGB."""


@contextlib.contextmanager
def open_rows(
    path: Path,
    *,
    intensity_range: tuple[float, float] | None = None,
    page: int | None = None,
    check: bool = False,
    rows_above: int = LARGE_PIXELS,
    max_pixels: int | None = None,
) -> Iterator[ImageRows]:
    """Opens an image to read it by rows; the pixels equal those that `read_image` returns.

    Large TIFF and BigTIFF files are decoded when they are read, one strip or one row of tiles at a
    time. Other formats, small images, and TIFFs of an unusual layout are decoded whole when they
    are opened.

    Args:
      path: image file.
      intensity_range: values of 16-bit and float images that are mapped linearly to 0 and 255
        (default: the smallest range that contains 0 and all values of the image).
      page: number of the page to read from a TIFF, from 1; None requires that the TIFF has only one
        page.
      check: whether to decode the image once at the start, to find damage before the first use.
      rows_above: number of pixels above which a TIFF is decoded in parts (default: 16 million).
      max_pixels: maximum number of pixels of an image that is decoded whole (default: 400 million).

    Raises:
      DeepLabError: the file is missing, damaged, not an image or too large to be decoded whole; it
        contains several pictures, or bands other than gray, colors and opacity; or it is a TIFF
        that is too large for Pillow, and tifffile or imagecodecs is not installed.
    """
    max_pixels = WHOLE_PIXELS if max_pixels is None else max_pixels
    with contextlib.ExitStack() as stack:
        tiff: _TiffRows | None = None
        georeference: Tags = ()
        pixels = math.prod(image_size(path, page))
        is_large = pixels > min(rows_above, max_whole_pixels())
        if is_large and _is_tiff(path) and _can_import_tifffile(path, pixels):
            with _damage_named(path):
                chosen = _open_page(path, page, stack)
                georeference = _georeference(chosen)
                if obstacle := _obstacle(chosen, str(path), max_pixels):
                    if pixels > max_pixels:
                        raise _too_large(path, pixels, max_pixels, obstacle)
                else:
                    tiff = _TiffRows(chosen, intensity_range, str(path))
        if tiff and check:
            tiff.check()
        yield tiff or _WholeImage(
            read_image(path, intensity_range=intensity_range, page=page, max_pixels=max_pixels),
            georeference,
        )


class _WholeImage:
    """Image that was decoded whole when it was opened, with the interface of `ImageRows`."""

    def __init__(self, pixels: np.ndarray, georeference: Tags) -> None:
        self._pixels, self.georeference = pixels, georeference
        height, width = pixels.shape[:2]
        self.size = height, width

    def read(self, first: int, last: int) -> np.ndarray:
        return self._pixels[first:last]


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in TIFF_STARTS


def _can_import_tifffile(path: Path, pixels: int) -> bool:
    """Returns whether tifffile and imagecodecs are installed.

    Raises:
      DeepLabError: one of them is not installed, and the image is too large for Pillow.
    """
    try:
        import_extra("tifffile", "tiff", f"{path}, a TIFF of {pixels:,} pixels,")
        import_extra("imagecodecs", "tiff", f"{path}, a TIFF of {pixels:,} pixels,")
    except DeepLabError:
        if pixels > max_whole_pixels():
            raise
        return False
    return True


def _open_page(path: Path, page: int | None, stack: contextlib.ExitStack) -> Any:
    """Opens a page of a TIFF with tifffile.

    Args:
      path: TIFF file.
      page: number of the page, from 1; None for the only page.
      stack: exit stack that closes the file.
    """
    import tifffile

    file = stack.enter_context(tifffile.TiffFile(path))
    # For pages after the first, tifffile may return frames that share the tags of the first.
    entries = [entry.aspage() for entry in file.pages]
    # Smaller copies and opacity masks of a page are not pages.
    pages = [entry for entry in entries if not entry.is_reduced and not entry.is_mask]
    pages = pages or entries
    return pages[check_page(page, len(pages), str(path))]


def _georeference(page: Any) -> Tags:
    """Returns the tags of the geographic position; () if the page has an EXIF orientation."""
    if page.tags.valueof(274, UPRIGHT) not in (0, UPRIGHT):
        # The tags refer to the stored pixels, not to the displayed image.
        return ()
    return tuple(
        # tifffile writes strings (type 2) with other characters than ASCII only as bytes.
        (code, tag.dtype, tag.count, tag.astuple()[3] if tag.dtype == 2 else tag.value, True)
        for code in GEOREFERENCE
        if (tag := page.tags.get(code))
    )


class _Obstacle(NamedTuple):
    """Reason why a page of a TIFF must be decoded whole, and a command that removes the reason."""

    reason: str
    command: str


def _obstacle(page: Any, name: str, max_pixels: int) -> _Obstacle | None:
    """Returns why a page of a TIFF must be decoded whole; None if it can be read by rows.

    Args:
      page: page opened by tifffile.
      name: name of the file in errors.
      max_pixels: maximum number of pixels of a compressed strip or of a row of tiles.

    Raises:
      DeepLabError: the page has bands other than gray, colors and opacity.
    """
    check_bands(page.photometric, page.samplesperpixel, page.extrasamples, name)
    sample = page.dtype.str[1:] if page.dtype else ""
    options = {PALETTE: " -expand rgb", WHITE_IS_ZERO: " -ot Byte -scale LOW HIGH 255 0"}
    is_byte = sample == "u1" and page.bitspersample == 8
    default = "" if is_byte else " -ot Byte -scale LOW HIGH 0 255"
    command = CONVERT.format(options.get(page.photometric, default))
    if sample not in SAMPLES or page.bitspersample != 8 * int(sample[1:]):
        return _Obstacle(f"samples of {page.bitspersample} bits", command)
    colors = {GRAY: 1, RGB: 3, YCBCR: 3}.get(page.photometric)
    if colors is None or (page.photometric == YCBCR and page.compression != JPEG):
        return _Obstacle(f"the colors {page.photometric.name}", command)
    opacity = page.samplesperpixel - colors
    opaque = CONVERT.format(" -b 1" if colors == 1 else " -b 1 -b 2 -b 3")
    if opacity and not (colors == 3 and sample in ("u1", "u2")):
        return _Obstacle("opacity", opaque)
    if opacity and tuple(page.extrasamples) == (PREMULTIPLIED,):
        return _Obstacle("premultiplied opacity", opaque)
    if page.tags.valueof(274, UPRIGHT) not in (0, UPRIGHT):
        return _Obstacle("an orientation", TURN)
    if page.imagedepth != 1:
        return _Obstacle("several depth planes", CONVERT.format(""))
    rows = page.tilelength if page.is_tiled else page.rowsperstrip
    if not _is_plain(page) and min(rows, page.imagelength) * page.imagewidth > max_pixels:
        return _Obstacle("long compressed strips", CONVERT.format(""))
    return None


def _too_large(path: Path, pixels: int, max_pixels: int, obstacle: _Obstacle) -> DeepLabError:
    return DeepLabError(
        f"{path}: the image has {pixels:,} pixels, but a TIFF with {obstacle.reason} must be "
        f"decoded whole, which is limited to {max_pixels:,} pixels. Convert it to a tiled TIFF of "
        f"gray or RGB, for example with `{obstacle.command}`"
    )


def _is_plain(page: Any) -> bool:
    """Returns whether the pixels of a TIFF page are stored without compression, row by row."""
    return page.is_contiguous and not page.is_tiled and page.predictor == 1 and page.fillorder == 1


class _TiffRows:
    """Page of a TIFF whose rows are decoded on access, with the interface of `ImageRows`."""

    def __init__(self, page: Any, intensity_range: tuple[float, float] | None, name: str) -> None:
        self._page, self._name = page, name
        self._planes, _, height, width, samples = page.shaped
        self.size = height, width
        self._num_samples = self._planes * samples
        self._colors = 1 if self._num_samples < 3 else 3
        self._segment_rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
        self._across = -(-width // page.tilewidth) if page.is_tiled else 1
        self._range = intensity_range
        # Cache: first row and pixels of the last `read`, and the last decoded tiles or strip.
        self._kept = 0, np.empty((0, width, 3), np.uint8)
        self._segments = -1, np.empty((0, width, self._num_samples), page.dtype)
        self.georeference = _georeference(page)
        self._check_extent()

    def check(self) -> tuple[float, float]:
        """Decodes all rows once, to find damage and the range of the pixel values.

        Returns:
          The pixel values that `read` maps to 0 and 255, if the pixels do not have 8 bits: the
          intensity range given to the constructor or, if it is None, the range of the page,
          extended to include 0.

        Raises:
          DeepLabError: the file is damaged, or its fourth channel is not opacity.
        """
        low = high = 0.0
        partly, height = 0, self.size[0]
        opacities: set[int] = set()
        for first in range(0, height, BLOCK_ROWS):
            samples = self._samples(first, min(first + BLOCK_ROWS, height))
            if samples.dtype != np.uint8:
                least, most = own_range([samples[..., : self._colors]])
                low, high = min(low, least), max(high, most)
            if self._num_samples == 4:
                opacity = samples[..., 3]
                partly += partly_transparent(opacity)
                opacities |= {int(opacity.min()), int(opacity.max())}
        if len(opacities) > 1:
            refuse_partly_transparent(partly / math.prod(self.size), self._name)
        if self._range is None:
            self._range = low, high
        return self._range

    def read(self, first: int, last: int) -> np.ndarray:
        """Returns the rows [first, last) of the image, uint8 [last - first, W, 3] RGB.

        The returned rows are cached. The next call decodes only the rows below them, unless it
        starts above them.
        """
        start, kept = self._kept
        if (start, len(kept)) == (first, last - first):
            return kept
        kept = kept[first - start : last - start] if start <= first else kept[:0]
        pixels = np.empty((last - first, self.size[1], 3), np.uint8)
        pixels[: len(kept)] = kept
        # Blocks limit the memory of samples of more than 8 bits.
        for begin in range(first + len(kept), last, BLOCK_ROWS):
            end = min(begin + BLOCK_ROWS, last)
            pixels[begin - first : end - first] = self._to_rgb(self._samples(begin, end))
        self._kept = first, pixels
        return pixels

    def _to_rgb(self, samples: np.ndarray) -> np.ndarray:
        colors = samples[..., : self._colors]
        if samples.dtype == np.uint8:
            return colors
        low, high = self._range or self.check()
        return to_bytes(colors.astype(np.float64), low, high)

    def _samples(self, first: int, last: int) -> np.ndarray:
        """Returns the stored values of the rows [first, last), as [last - first, W, bands]."""
        with _damage_named(self._name):
            if _is_plain(self._page):
                return self._plain_samples(first, last)
            samples = np.empty((last - first, self.size[1], self._num_samples), self._page.dtype)
            height = self._segment_rows
            for at in range(first // height, -(-last // height)):
                segments = self._decoded(at)
                top, bottom = max(first, at * height), min(last, at * height + len(segments))
                samples[top - first : bottom - first] = segments[
                    top - at * height : bottom - at * height
                ]
            return samples

    def _plain_samples(self, first: int, last: int) -> np.ndarray:
        """Reads the stored values of the rows [first, last) from an uncompressed page.

        The result has the shape [last - first, W, bands]. Only these rows are read from the file,
        even if the page consists of a single strip.
        """
        page, (height, width) = self._page, self.size
        file, dtype = page.parent.filehandle, page.dtype.newbyteorder(page.parent.byteorder)
        shape = last - first, width, self._num_samples // self._planes
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        planes = []
        for plane in range(self._planes):
            file.seek(page.dataoffsets[0] + (plane * height + first) * row_bytes)
            content = file.read(shape[0] * row_bytes)
            planes.append(np.frombuffer(content, dtype).reshape(shape))
        samples = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        return samples.astype(page.dtype, copy=False)

    def _decoded(self, at: int) -> np.ndarray:
        """Returns the stored values of one strip or of one row of tiles, [rows, W, bands].

        Args:
          at: index of the strip or of the row of tiles, from the top.
        """
        if self._segments[0] == at:
            return self._segments[1]
        page, (height, width) = self._page, self.size
        rows = min(self._segment_rows, height - at * self._segment_rows)
        down = -(-height // self._segment_rows)
        segments = np.zeros((rows, width, self._num_samples), page.dtype)
        for plane in range(self._planes):
            for column in range(self._across):
                index = (plane * down + at) * self._across + column
                pixels, (*_, left, _), _ = page.decode(
                    self._stored(index), index, jpegtables=page.jpegtables
                )
                # Sparse files omit tiles without data.
                if pixels is not None:
                    pixels = pixels[0][:rows, : width - left]
                    segments[
                        : len(pixels),
                        left : left + pixels.shape[1],
                        plane : plane + pixels.shape[2],
                    ] = pixels
        self._segments = at, segments
        return segments

    def _stored(self, index: int) -> bytes | None:
        page = self._page
        if not page.databytecounts[index]:
            return None
        page.parent.filehandle.seek(page.dataoffsets[index])
        return page.parent.filehandle.read(page.databytecounts[index])

    def _check_extent(self) -> None:
        """Raises a ValueError if the file does not contain all tiles or strips of the page."""
        page = self._page
        length = page.parent.filehandle.size
        extents = zip(page.dataoffsets, page.databytecounts, strict=False)
        end = max((offset + count for offset, count in extents), default=0)
        expected = self._planes * self._across * -(-self.size[0] // self._segment_rows)
        if end > length or len(page.databytecounts) < expected:
            raise ValueError("the file ends before its last row")


@contextlib.contextmanager
def _damage_named(path: object) -> Iterator[None]:
    """Converts the errors of decoders to a DeepLabError that names the damaged file."""
    try:
        with quiet_logger("tifffile"):
            yield
    except DeepLabError:
        raise
    # On damaged files, decoders raise exceptions of many types.
    except Exception as error:
        raise DeepLabError(f"{path}: truncated or damaged image ({error})") from error
