"""Predicts images of any size in overlapping tiles, with bounded memory."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from deeplab_jax.data.crops import pad
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.padding import Grid, Size, padded_size
from deeplab_jax.models import DeepLab

Item = TypeVar("Item")


class Span(NamedTuple):
    """Position of a tile along one axis, in pixels of the padded image.

    Attributes:
      start: position of the first pixel of the tile.
      first, last: range [first, last) of the pixels whose result is taken from this tile.
    """

    start: int
    first: int
    last: int


class Place(NamedTuple):
    """Position of a tile along both axes."""

    rows: Span
    columns: Span


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Division of images into overlapping tiles of one size.

    Neighboring tiles overlap by at least twice the margin. Each overlap is divided near its middle:
    the result of a pixel is taken from a single tile, without averaging. The distance between the
    pixel and the border of this tile is at least the margin, except at the border of the padded
    image. The last tile is shifted to end at the border of the padded image.

    Tiles start at multiples of the output stride. At scale 1, the feature map of a tile therefore
    samples the same positions as that of the whole padded image. Both have the same result if the
    margin is at least the radius of the receptive field, and the network has neither image pooling
    nor `multi_scale`. At other scales, the feature map of a tile may sample other positions.

    Attributes:
      tile: (H, W) of every tile, a size that the network accepts.
      margin: (rows, columns), widths in pixels of the strips along the sides of a tile. Results in
        these strips are discarded, except at the border of the padded image.
      grid: legal sizes of tiles and padded images. Tiles start at multiples of `grid.step`, the
        output stride.
      fill: value of pixels outside the image, per channel.
    """

    tile: Size
    margin: Size
    grid: Grid
    fill: tuple[int, ...]

    @classmethod
    def of(cls, model: DeepLab, options: InferenceOptions) -> "Tiling":
        """Returns the tiling for inference options whose tile size is set.

        Raises:
          DeepLabError: the overlap discards all pixels of a tile.
          ValueError: the options have no tile size.
        """
        if options.tile is None:
            raise ValueError("a tiling requires a tile size; set tile, as in tile=(513, 513)")
        architecture = model.architecture
        grid = Grid(architecture.output_stride, architecture.size_remainder)
        stride, extra = grid
        tile = padded_size(model, options.tile, scales=options.scales)
        rows, columns = (
            stride * _margin((side - extra) // stride, options.overlap, extra) for side in tile
        )
        tiling = cls(tile, (rows, columns), grid, architecture.mean_pixel)
        if min(tiling.core) < stride:
            cells = itertools.count(1)
            least = next(n for n in cells if n > 2 * _margin(n, options.overlap, extra))
            side = least * stride + extra
            raise DeepLabError(
                f"overlap {options.overlap:g} would discard all pixels of a tile of "
                f"{tile[0]}x{tile[1]} pixels at output stride {stride}; give a smaller overlap, or "
                f"tiles of at least {side}x{side} pixels"
            )
        return tiling

    @property
    def core(self) -> Size:
        """Size of a tile without its margins, (rows, columns) in pixels.

        Neighboring tiles start this far apart, except the last two tiles, which may be closer.
        """
        height, width = (
            side - self.grid.plus - 2 * margin
            for side, margin in zip(self.tile, self.margin, strict=True)
        )
        return height, width

    def canvas(self, size: Size) -> Size:
        """Returns the (H, W) to which an image is padded; it is at least the size of a tile."""
        return self.grid.round_up(size, self.tile)

    def places(self, size: Size) -> list[Place]:
        """Returns the positions of all tiles of an image of `size` (H, W), row by row."""
        axes = zip(self.canvas(size), self.tile, self.core, strict=True)
        rows, columns = (self._spans(*axis) for axis in axes)
        return [Place(*pair) for pair in itertools.product(rows, columns)]

    def _spans(self, length: int, tile: int, core: int) -> list[Span]:
        starts = [*range(0, length - tile, core), length - tile]
        step, plus = self.grid
        # Cuts each overlap near its middle, at the position of a feature-map sample.
        cuts = [
            (before + after + tile - plus) // 2 // step * step
            for before, after in itertools.pairwise(starts)
        ]
        return list(map(Span, starts, [0, *cuts], [*cuts, length]))


def _margin(cells: int, overlap: float, extra: int) -> int:
    """Returns the margin of a tile along one axis, in samples of the feature map.

    Args:
      cells: length of the tile, (pixels − extra) / output stride.
      overlap: fraction of the tile to discard at each side, in [0, 0.5).
      extra: `Grid.plus` of the tiling, 0 or 1 pixel.
    """
    # Without aligned corners, the last pixels of a cell also depend on the neighboring sample.
    return math.ceil(overlap * cells) + (1 if overlap and not extra else 0)


def run_tiles(
    tiling: Tiling,
    forward: Callable[[np.ndarray], Any],
    image: np.ndarray,
    *,
    tiles_at_once: int = 1,
) -> Any:
    """Applies a function to the tiles of an image and joins the results.

    Device memory contains the variables and the data of two calls of the function, whatever the
    size of the image. Host memory contains the image, the joined results (4 bytes per pixel for an
    int32 class map, 4·num_classes bytes for float32 logits) and the results of one call.

    Args:
      tiling: division into tiles.
      forward: function from tiles [tiles_at_once, h, w, C] to arrays [tiles_at_once, h, w, …].
      image: [H, W, C] with the bands that the network takes.
      tiles_at_once: number of tiles per call. If fewer tiles remain for the last call, the last of
        them is repeated.

    Returns:
      The results of the whole image: NumPy arrays [H, W, …], in the pytree that `forward` returns.
    """
    size = image.shape[:2]
    whole: list[np.ndarray] = []
    structure = None

    def cut(place: Place) -> np.ndarray:
        row, height = place.rows.start, tiling.tile[0]
        return _cut(image[row : row + height], place, tiling)

    for group, results in _one_behind(tiling.places(size), forward, cut, tiles_at_once):
        leaves, structure = jax.tree.flatten(results)
        whole = whole or [np.empty((*size, *leaf.shape[3:]), leaf.dtype) for leaf in leaves]
        for target, leaf in zip(whole, leaves, strict=True):
            _write(target, np.asarray(leaf), group)
    return jax.tree.unflatten(structure, whole)


def run_tile_rows(
    tiling: Tiling,
    forward: Callable[[np.ndarray], Any],
    size: Size,
    read: Callable[[int, int], np.ndarray],
    track: Callable[[Sequence[Place]], Iterable[Place]] = iter,
) -> Iterator[np.ndarray]:
    """Applies a function to the tiles of a large image, and yields the result in blocks of rows.

    The blocks contain the same values as the result of `run_tiles`. The image is also read in
    blocks of rows. Host memory contains one row of tiles and the results of these tiles.

    Args:
      tiling: division into tiles.
      forward: function from one tile, uint8 [1, h, w, 3], to an array [1, h, w, …].
      size: (H, W) of the image.
      read: function that returns the rows [first, last) of the image, uint8 [rows, W, 3].
      track: function that takes the positions of all tiles, yields them unchanged, and may report
        progress.

    Yields:
      Blocks of successive rows of the result, [rows, W, …]. Together, they are [H, W, …].
    """
    height, width = size

    def cut(place: Place) -> np.ndarray:
        row = place.rows.start
        return _cut(read(row, min(row + tiling.tile[0], height)), place, tiling)

    rows, joined = None, np.empty(0)
    for (place,), results in _one_behind(track(tiling.places(size)), forward, cut, 1):
        result = np.asarray(results)
        if place.rows != rows:
            if rows is not None:
                yield joined
            rows = place.rows
            shape = max(0, min(rows.last, height) - rows.first), width, *result.shape[3:]
            joined = np.empty(shape, result.dtype)
        # Positions relative to the block of joined rows.
        start, first, last = rows
        here = place._replace(rows=Span(start - first, 0, last - first))
        _write(joined, result, [here])
    yield joined


def _one_behind(
    places: Iterable[Place],
    forward: Callable[[np.ndarray], Any],
    cut: Callable[[Place], np.ndarray],
    count: int,
) -> Iterator[tuple[Sequence[Place], Any]]:
    """Yields groups of up to `count` places, each group with the results of its tiles.

    While the caller processes a group, the device computes the results of the next group. If the
    last group is smaller than `count`, its last tile is repeated.

    Args:
      places: positions of the tiles.
      forward: function from tiles [count, h, w, C] to results [count, h, w, …].
      cut: function that returns the tile at a place, [h, w, C].
      count: number of tiles per call of `forward`.
    """
    waiting: tuple[Sequence[Place], Any] | None = None
    for group in groups(places, count):
        tiles = [cut(place) for place in group]
        tiles += tiles[-1:] * (count - len(tiles))
        started = group, forward(np.stack(tiles))
        if waiting:
            yield waiting
        waiting = started
    if waiting:
        yield waiting


def groups(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Yields lists of `count` successive items; the last list may be shorter."""
    remaining = iter(items)
    while group := list(itertools.islice(remaining, count)):
        yield group


def _cut(rows: np.ndarray, place: Place, tiling: Tiling) -> np.ndarray:
    """Cuts a tile from image rows; its pixels outside the image have the value `tiling.fill`."""
    column, width = place.columns.start, tiling.tile[1]
    return pad(rows[:, column : column + width], tiling.tile, tiling.fill)


def _write(target: np.ndarray, results: np.ndarray, places: Sequence[Place]) -> None:
    """Copies the pixels [first, last) of each place from the results of its tile to `target`."""
    height, width = target.shape[:2]
    for result, (rows, columns) in zip(results, places, strict=False):
        bottom, right = min(rows.last, height), min(columns.last, width)
        target[rows.first : bottom, columns.first : right] = result[
            rows.first - rows.start : bottom - rows.start,
            columns.first - columns.start : right - columns.start,
        ]
