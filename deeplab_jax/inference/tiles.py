"""Images of any size in tiles that overlap, in bounded memory."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from deeplab_jax.data.crops import pad
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.padding import Size, padded_size
from deeplab_jax.models import DeepLab


class Span(NamedTuple):
    """Where a tile lies along one axis, in pixels of the padded image.

    Attributes:
      start: its first pixel.
      first, last: of the pixels [first, last) that are taken from it.
    """

    start: int
    first: int
    last: int


class Place(NamedTuple):
    """Where a tile lies."""

    rows: Span
    columns: Span


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles of one size, and which pixels are taken from each.

    Neighbours overlap by at least twice the margin, and each pixel is taken from the tile in which
    it lies deepest: at least the margin away from every border of the tile that is not the padded
    image's. Nothing is averaged. So a network that sees no farther than the margin gives what it
    gives for the whole image on the same canvas; and each pixel is written once, so that no sums
    are kept. Tiles start at multiples of the output stride, where the whole image's map has its
    samples, too; the last one is shifted inside.

    Attributes:
      tile: (H, W) of every tile, a legal size of the network.
      margin: rows and columns on each side that only serve as surroundings.
      stride: output stride.
      extra: 1 where corners align and tiles are k·stride + 1 long, else 0.
      fill: pixel outside of the image, a value for each channel.
    """

    tile: Size
    margin: Size
    stride: int
    extra: int
    fill: tuple[int, ...]

    @classmethod
    def of(cls, model: DeepLab, options: InferenceOptions) -> "Tiling":
        """Returns the tiling that options ask for, which must name a tile.

        Raises:
          DeepLabError: the overlap leaves nothing of a tile.
        """
        architecture = model.architecture
        stride, extra = architecture.output_stride, int(architecture.align_corners)
        tile = padded_size(model, options.tile, scales=options.scales)
        margins = [
            stride * _margin((side - extra) // stride, options.overlap, extra) for side in tile
        ]
        tiling = cls(tile, tuple(margins), stride, extra, architecture.mean_pixel)
        if min(tiling.core) < stride:
            cells = itertools.count(1)
            least = next(n for n in cells if n > 2 * _margin(n, options.overlap, extra))
            side = least * stride + extra
            raise DeepLabError(
                f"overlap {options.overlap:g} leaves nothing of tiles of {tile[0]}x{tile[1]} at "
                f"output stride {stride}; give less, or tiles of at least {side}x{side}"
            )
        return tiling

    @property
    def core(self) -> Size:
        """Rows and columns from one tile to the next."""
        height, width = (
            side - self.extra - 2 * margin
            for side, margin in zip(self.tile, self.margin, strict=True)
        )
        return height, width

    def canvas(self, size: Size) -> Size:
        """Returns the size that an image of a size is padded to: a legal one that holds a tile."""
        height, width = (
            max(-(-(length - self.extra) // self.stride) * self.stride + self.extra, side)
            for length, side in zip(size, self.tile, strict=True)
        )
        return height, width

    def places(self, size: Size) -> list[Place]:
        """Returns the tiles of an image of a size, row by row."""
        axes = zip(self.canvas(size), self.tile, self.core, strict=True)
        rows, columns = (self._spans(*axis) for axis in axes)
        return [Place(*pair) for pair in itertools.product(rows, columns)]

    def _spans(self, length: int, tile: int, core: int) -> list[Span]:
        starts = [*range(0, length - tile, core), length - tile]
        # The middle of an overlap, on the samples of the map.
        cuts = [
            (before + after + tile - self.extra) // 2 // self.stride * self.stride
            for before, after in itertools.pairwise(starts)
        ]
        return list(map(Span, starts, [0, *cuts], [*cuts, length]))


def _margin(cells: int, overlap: float, extra: int) -> int:
    """Returns the margin of a tile; both in samples of the map."""
    # Without aligned corners the last pixels of a sample's cell need its neighbour.
    return math.ceil(overlap * cells) + (1 if overlap and not extra else 0)


def run_tiles(
    tiling: Tiling,
    forward: Callable[[np.ndarray], Any],
    image: np.ndarray,
    *,
    tiles_at_once: int = 1,
) -> Any:
    """Returns what a function makes of an image, tile by tile.

    Memory: on the device the variables and two calls of the function on `tiles_at_once` tiles,
    whatever the image's size. Here the image and the results at its size, each pixel written once:
    H·W bytes times what the function gives a pixel (4 for an int32 class map, 4·num_classes for
    float32 logits); and the results of one call.

    Args:
      tiling: how to cut.
      forward: uint8 [tiles_at_once, h, w, 3] -> arrays [tiles_at_once, …, h, w].
      image: uint8 [H, W, 3].
      tiles_at_once: in one call; the last call repeats a tile where some are missing.

    Returns:
      NumPy arrays […, H, W].
    """
    size = image.shape[:2]
    whole: list[np.ndarray] = []
    structure = None
    for group, results in _one_behind(tiling, forward, image, tiles_at_once):
        leaves, structure = jax.tree.flatten(results)
        whole = whole or [np.empty((*leaf.shape[1:-2], *size), leaf.dtype) for leaf in leaves]
        for target, leaf in zip(whole, leaves, strict=True):
            _write(target, np.asarray(leaf), group)
    return jax.tree.unflatten(structure, whole)


def _one_behind(
    tiling: Tiling, forward: Callable[[np.ndarray], Any], image: np.ndarray, count: int
) -> Iterator[tuple[Sequence[Place], Any]]:
    """Yields places with their results, while the device is at the next ones."""
    waiting = None
    for group in _groups(tiling.places(image.shape[:2]), count):
        tiles = [_cut(image, place, tiling) for place in group]
        tiles += tiles[-1:] * (count - len(tiles))
        started = group, forward(np.stack(tiles))
        if waiting:
            yield waiting
        waiting = started
    yield waiting


def _groups(places: Iterable[Place], count: int) -> Iterator[list[Place]]:
    remaining = iter(places)
    while group := list(itertools.islice(remaining, count)):
        yield group


def _cut(image: np.ndarray, place: Place, tiling: Tiling) -> np.ndarray:
    """Returns the tile, padded with the mean pixel where it reaches over the image."""
    (row, column), (height, width) = (place.rows.start, place.columns.start), tiling.tile
    return pad(image[row : row + height, column : column + width], tiling.tile, tiling.fill)


def _write(target: np.ndarray, results: np.ndarray, places: Sequence[Place]) -> None:
    """Writes each tile's own pixels; those outside of the image fall away."""
    height, width = target.shape[-2:]
    for result, (rows, columns) in zip(results, places, strict=False):
        bottom, right = min(rows.last, height), min(columns.last, width)
        target[..., rows.first : bottom, columns.first : right] = result[
            ...,
            rows.first - rows.start : bottom - rows.start,
            columns.first - columns.start : right - columns.start,
        ]
