"""Bilinear resizing some rows at a time, for what looks at each pixel of the result only once.

A resized map of scores is by far the largest array of a network: at output stride 4 it has 16 times
the numbers of the map it comes from. What follows often keeps one number of a pixel's many.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.ops.platform import by_platform
from deeplab_jax.ops.resize import interpolation_matrix, resize_bilinear

# Fewer are slower, where several cores share a block; more are too, and take memory
# (docs/benchmarks.md).
ROWS_ON_CPUS = 176


@dataclasses.dataclass(frozen=True)
class ResizedRows:
    """A resized map whose rows are made when they are asked for.

    Attributes:
      wide: [N, h, W', C], resized along the rows alone, in at least float32.
      weights: [blocks, rows, h], one block of rows of the interpolation along the columns after
        the other; rows beyond the last are zeros.
      height: H', of the whole map.
      dtype: of the map, and of the blocks of its resized rows.
    """

    wide: jax.Array
    weights: jax.Array
    height: int
    dtype: jnp.dtype

    @classmethod
    def of(
        cls, inputs: jax.Array, size: tuple[int, int], rows: int, *, align_corners: bool = True
    ) -> "ResizedRows":
        """Returns the rows of `resize_bilinear(inputs, size)` in blocks.

        Args:
          inputs: [N, h, w, C], floating point.
          size: (H', W') in pixels.
          rows: of a block at most, at least 1. Blocks are of one size, so that few rows of the last
            are beyond the map.
          align_corners: see `ops.resize_bilinear`.
        """
        height, width = inputs.shape[1:3]
        across = interpolation_matrix(width, size[1], align_corners, inputs.dtype)
        down = interpolation_matrix(height, size[0], align_corners, inputs.dtype)
        blocks = -(-size[0] // rows)
        rows = -(-size[0] // blocks)
        down = jnp.pad(down, ((0, -size[0] % rows), (0, 0))).reshape(-1, rows, height)
        accurate = inputs.astype(across.dtype)
        wide = jnp.einsum("Ww,nhwc->nhWc", across, accurate, precision=lax.Precision.HIGHEST)
        return cls(wide, down, size[0], inputs.dtype)

    def block(self, weights: jax.Array) -> jax.Array:
        """Returns the rows of one block of `weights`, [N, rows, W', C]."""
        rows = jnp.einsum("Hh,nhWc->nHWc", weights, self.wide, precision=lax.Precision.HIGHEST)
        return rows.astype(self.dtype)

    def split(self, array: jax.Array, beyond: float) -> jax.Array:
        """Returns an array of the resized map's rows in the same blocks.

        Args:
          array: [N, H', …].
          beyond: value of rows beyond the last.

        Returns:
          [blocks, N, rows, …].
        """
        blocks, rows = self.weights.shape[:2]
        edges = [(0, 0), (0, blocks * rows - self.height), *[(0, 0)] * (array.ndim - 2)]
        whole = jnp.pad(array, edges, constant_values=beyond)
        return whole.reshape(len(array), blocks, rows, *array.shape[2:]).swapaxes(0, 1)

    def join(self, blocks: jax.Array) -> jax.Array:
        """Returns [N, H', …] of blocks as `split` gives them."""
        whole = blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, *blocks.shape[3:])
        return whole[:, : self.height]


def argmax_of_resized(
    scores: jax.Array, size: tuple[int, int], *, align_corners: bool = True
) -> jax.Array:
    """Returns the class of the largest score of every pixel of the resized map.

    On CPUs some rows at a time: of the resized map one block of ROWS_ON_CPUS rows is there at once.

    Args:
      scores: [N, h, w, C], floating point.
      size: (H', W') in pixels.
      align_corners: see `ops.resize_bilinear`.

    Returns:
      int32 [N, H', W'].
    """

    def whole(scores: jax.Array) -> jax.Array:
        return _argmax(resize_bilinear(scores, size, align_corners=align_corners))

    def by_rows(scores: jax.Array) -> jax.Array:
        rows = ResizedRows.of(scores, size, ROWS_ON_CPUS, align_corners=align_corners)
        return rows.join(lax.map(lambda weights: _argmax(rows.block(weights)), rows.weights))

    if scores.shape[1:3] == tuple(size):
        return _argmax(scores)
    return by_platform(whole, by_rows, scores)


def _argmax(scores: jax.Array) -> jax.Array:
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)
