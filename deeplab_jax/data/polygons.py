"""Masks of objects that are given as polygons or as run lengths, as COCO gives them."""

from collections.abc import Sequence

import numpy as np

from deeplab_jax.errors import DeepLabError


def draw_polygon(corners: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns which pixels have their centre inside a polygon (even-odd rule).

    Args:
      corners: x, y, x, y, … in pixels from the upper left corner of the image; may lie outside it.
      size: (height, width) of the image.

    Returns:
      bool [height, width].
    """
    points = np.asarray(corners, float).reshape(-1, 2)
    mask = np.zeros(size, bool)
    # Most objects are small: only their box is worked on.
    left, top = (np.clip(np.floor(points.min(0)), 0, size[::-1])).astype(int)
    right, bottom = (np.clip(np.ceil(points.max(0)), 0, size[::-1])).astype(int)
    box = mask[top:bottom, left:right]
    box[:] = _inside(points - (left, top), *box.shape)
    return mask


def _inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Counts the edges that lie left of every pixel's centre."""
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    # Rows whose centres an edge crosses, its lower end excluded; level edges cross none.
    first, last = (
        np.clip(np.ceil(end(y0, y1) - 0.5), 0, height).astype(int)
        for end in (np.minimum, np.maximum)
    )
    counts = last - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.ceil(x0[edge] + (row + 0.5 - y0[edge]) * slope - 0.5)
    turns = np.zeros((height, width + 1), int)
    np.add.at(turns, (row, np.clip(column, 0, width).astype(int)), 1)
    return np.cumsum(turns, axis=1)[:, :width] % 2 == 1


def draw_runs(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of run lengths: outside, inside, outside, …, column by column.

    Args:
      counts: in pixels; together as many as the image has.
      size: (height, width) of the image.

    Returns:
      bool [height, width].

    Raises:
      DeepLabError: they are not as many.
    """
    height, width = size
    if sum(counts) != height * width:
        raise DeepLabError(f"{sum(counts)} pixels in runs for an image of {height}x{width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T
