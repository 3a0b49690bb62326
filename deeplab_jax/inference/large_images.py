"""Predicts large image files by rows of tiles; memory does not grow with the image height."""

import functools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab_jax.data.image_rows import ImageRows, Size
from deeplab_jax.inference.tiles import Place
from deeplab_jax.labels import VOID_LABEL, label_dtype
from deeplab_jax.lazy import import_extra
from deeplab_jax.visualize.class_maps import Color, Overlay, color_table, colorize, line_thickness

if TYPE_CHECKING:
    from deeplab_jax.inference.predictor import Predictor

# Side of the tiles of a written TIFF; also the number of rows that are drawn at a time.
SIDE = 256
# Filter types of a row in a PNG: unchanged, or the difference from the row above.
AS_IT_IS, DIFFERENCE = 0, 2
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE = 0, 2, 3


def predict_rows(
    predictor: "Predictor",
    image: ImageRows,
    class_map: Path,
    overlay: Path,
    colors: Path | None,
    track: Callable[[Sequence[Place]], Iterable[Place]] = iter,
) -> None:
    """Predicts an image by rows, and writes its class map, its overlay and its class colors.

    Host memory contains only one row of tiles at a time. The class indices are first written to a
    temporary file, from which all output files are written. The path of the temporary file is
    `class_map` with its suffix replaced by `.classes`. The caller removes the file.

    Args:
      predictor: predictor with tiles and without a CRF.
      image: image that is read by rows.
      class_map: file of the class indices; its suffix selects PNG or TIFF.
      overlay: file of the image blended with the colors of its classes, PNG or TIFF.
      colors: file of the class colors, PNG or TIFF; None: not written.
      track: function that takes the positions of all tiles, yields them unchanged, and may report
        progress.
    """
    palette = predictor.palette
    scratch = _ClassFile(class_map.with_suffix(".classes"), image.size[1], len(palette))
    scratch.write(predictor.class_map_rows(image.size, image.read, track))
    thickness = line_thickness(image.size)
    drawing = Overlay(palette)

    def draw(first: int, last: int) -> np.ndarray:
        # The lines between classes depend on the rows below.
        below = min(last + thickness, image.size[0])
        drawn = drawing.draw(image.read(first, below), scratch.read(first, below), thickness)
        return drawn[: last - first]

    write = functools.partial(_write_picture, size=image.size, tags=image.georeference)
    write(class_map, scratch.read, palette=palette)
    if colors:
        write(colors, lambda first, last: colorize(scratch.read(first, last), palette))
    write(overlay, draw)


class _ClassFile:
    """Temporary file of the class indices of an image; any of its rows can be read."""

    def __init__(self, path: Path, width: int, num_classes: int) -> None:
        self.path, self._width, self._dtype = path, width, label_dtype(num_classes)

    def write(self, parts: Iterable[np.ndarray]) -> None:
        with self.path.open("wb") as file:
            for rows in parts:
                file.write(rows.astype(self._dtype).data)

    def read(self, first: int, last: int) -> np.ndarray:
        count, offset = (
            number * self._width * self._dtype.itemsize for number in (last - first, first)
        )
        with self.path.open("rb") as file:
            file.seek(offset)
            content = file.read(count)
        return np.frombuffer(content, self._dtype).reshape(last - first, self._width)


def _write_picture(
    path: Path,
    read: Callable[[int, int], np.ndarray],
    *,
    size: Size,
    palette: Sequence[Color] | None = None,
    tags: Sequence[tuple[Any, ...]] = (),
) -> None:
    """Writes a picture in blocks of rows, so that it is never in memory as a whole.

    Args:
      path: file to write; its suffix selects PNG or TIFF.
      read: function that returns the rows [first, last): uint8 [rows, W, 3] RGB, or class indices,
        uint8 or uint16 [rows, W].
      size: (height, width) in pixels.
      palette: color of each class if `read` returns class indices; None if it returns RGB. With
        more than 255 classes, the colors are not used, and class indices are gray levels.
      tags: additional tags of a TIFF.
    """
    colors, dtype = None, np.dtype(np.uint8)
    if palette is not None:
        colors = color_table(palette) if len(palette) <= VOID_LABEL else None
        dtype = label_dtype(len(palette))
    rows = (read(first, min(first + SIDE, size[0])) for first in range(0, size[0], SIDE))
    if path.suffix == ".png":
        _write_png(path, rows, size, dtype, palette is not None, colors)
    else:
        _write_tiff(path, rows, size, dtype, palette is not None, colors, tags)


def _write_png(
    path: Path,
    parts: Iterator[np.ndarray],
    size: Size,
    dtype: np.dtype,
    indexed: bool,
    colors: np.ndarray | None,
) -> None:
    kind = RGB if not indexed else GRAY if colors is None else PALETTE
    compressor = zlib.compressobj()
    above = np.zeros((1, size[1] * (1 if indexed else 3)), dtype)

    with path.open("wb") as file:

        def chunk(name: bytes, data: bytes) -> None:
            checksum = zlib.crc32(name + data)
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum))

        file.write(PNG_SIGNATURE)
        bits = 8 * dtype.itemsize
        chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0))
        if colors is not None:
            chunk(b"PLTE", colors.tobytes())
        for part in parts:
            rows = part.reshape(len(part), -1)
            if not indexed:
                rows, above = rows - np.concatenate([above, rows[:-1]]), rows[-1:]
            filters = np.full((len(rows), 1), AS_IT_IS if indexed else DIFFERENCE, np.uint8)
            stored = rows.astype(dtype.newbyteorder(">"), copy=False).view(np.uint8)
            if data := compressor.compress(np.hstack([filters, stored]).data):
                chunk(b"IDAT", data)
        chunk(b"IDAT", compressor.flush())
        chunk(b"IEND", b"")


def _write_tiff(
    path: Path,
    parts: Iterator[np.ndarray],
    size: Size,
    dtype: np.dtype,
    indexed: bool,
    colors: np.ndarray | None,
    tags: Sequence[tuple[Any, ...]],
) -> None:
    """Writes a tiled BigTIFF, compressed with deflate."""
    tifffile = import_extra("tifffile", "tiff", f"{path.name}, a TIFF,")

    def tiles() -> Iterator[np.ndarray]:
        for part in parts:
            for left in range(0, size[1], SIDE):
                tile = part[:, left : left + SIDE]
                yield tile if indexed else tile.reshape(*tile.shape[:2], 3)

    kind = "rgb" if not indexed else "minisblack" if colors is None else "palette"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            tiles(),
            shape=size if indexed else (*size, 3),
            dtype=dtype,
            tile=(SIDE, SIDE),
            compression="zlib",
            predictor=not indexed,
            photometric=kind,
            # TIFF color maps have 16 bits per channel.
            colormap=None if colors is None else colors.T.astype(np.uint16) * 257,
            extratags=tags,
            metadata=None,
            software=False,
            maxworkers=1,
        )
