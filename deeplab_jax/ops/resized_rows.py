"""Functions of bilinearly resized scores that need not keep the resized scores in memory.

The upsampled scores are by far the largest array of a network: at output stride 4 they are 16 times
as large as the scores before upsampling. The loss therefore upsamples a block of rows at a time,
and on CPUs the argmax interpolates the scores of one pixel at a time.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, Int32, Shaped
from deeplab_jax.ops.dispatch import dispatch
from deeplab_jax.ops.neighbors import multiply
from deeplab_jax.ops.resize import interpolation_matrix, resize_bilinear, sparse_interpolation
from deeplab_jax.ops.xla_convolution import Size

# Maximum number of classes that one loop compares on CPUs. Longer loops take seconds to compile.
MAX_CLASSES_IN_A_LOOP = 64


@dataclasses.dataclass(frozen=True)
class ResizedRows:
    """Bilinearly resized map that is computed one block of rows at a time.

    Attributes:
      wide: map resized to the new width but not yet to the new height, [N, h, W, C], in at least
        float32.
      weights: vertical interpolation matrix in blocks of rows, [blocks, rows, h]; rows after the
        end of the resized map are zeros.
      height: height H of the resized map, in pixels.
      dtype: dtype of the map before and after resizing.
    """

    wide: jax.Array
    weights: jax.Array
    height: int
    dtype: jnp.dtype

    @classmethod
    def of(
        cls, inputs: Float[Array, "N h w C"], size: Size, rows: int, *, align_corners: bool = True
    ) -> "ResizedRows":
        """Prepares the computation of `resize_bilinear(inputs, size)` in blocks of rows.

        Args:
          inputs: [N, h, w, C], floating point.
          size: (H, W) of the resized map, in pixels.
          rows: maximum number of rows per block, at least 1. All blocks have the same size; the
            last one may extend past the end of the map.
          align_corners: whether resizing aligns corners, see `ops.resize_bilinear`.
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

    def block(self, weights: Float[Array, "R h"]) -> Float[Array, "N R W C"]:
        """Computes one block [N, R, W, C] of R rows of the resized map.

        Args:
          weights: one block of the attribute `weights`, [R, h].
        """
        rows = jnp.einsum("Hh,nhWc->nHWc", weights, self.wide, precision=lax.Precision.HIGHEST)
        return rows.astype(self.dtype)

    def split(
        self, array: Shaped[Array, "N H ..."], beyond: float
    ) -> Shaped[Array, "blocks N R ..."]:
        """Splits an array that has as many rows as the resized map, such as a label, into blocks.

        Args:
          array: [N, H, …].
          beyond: value that fills the last block after the end of the array.

        Returns:
          [blocks, N, R, …] with R rows in each block.
        """
        blocks, rows = self.weights.shape[:2]
        edges = [(0, 0), (0, blocks * rows - self.height), *[(0, 0)] * (array.ndim - 2)]
        whole = jnp.pad(array, edges, constant_values=beyond)
        return whole.reshape(len(array), blocks, rows, *array.shape[2:]).swapaxes(0, 1)

    def join(self, blocks: Shaped[Array, "blocks N R ..."]) -> Shaped[Array, "N H ..."]:
        """Joins blocks into an array [N, H, …]; the inverse of `split`."""
        whole = blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, *blocks.shape[3:])
        return whole[:, : self.height]


def argmax_of_resized(
    scores: Float[Array, "N h w C"], size: Size, *, align_corners: bool = True
) -> Int32[Array, "N H W"]:
    """Resizes scores bilinearly and returns the class with the largest score for every pixel.

    On CPUs, the resized scores are never in memory as a whole. For up to 64 classes, one loop over
    the pixels interpolates and compares the scores of all classes. See docs/benchmarks.md for time
    and memory. test_resized_rows.py compares the result with the argmax of `resize_bilinear`.

    Args:
      scores: [N, h, w, C], floating point.
      size: (H, W) of the class map, in pixels.
      align_corners: whether resizing aligns corners, see `ops.resize_bilinear`.

    Returns:
      int32 [N, H, W]. As in `jnp.argmax`, the first of equal scores counts, and NaN is the largest.
    """

    def whole(scores: jax.Array) -> jax.Array:
        return _argmax(resize_bilinear(scores, size, align_corners=align_corners))

    def by_class(scores: jax.Array) -> jax.Array:
        return _argmax_by_class(scores, size, align_corners)

    if scores.shape[1:3] == tuple(size):
        return _argmax(scores)
    known = all(isinstance(side, int) for side in (*scores.shape, *size))
    if not known or scores.shape[-1] > MAX_CLASSES_IN_A_LOOP:
        return whole(scores)
    return dispatch(whole, by_class, scores)


def _argmax(scores: Float[Array, "... C"]) -> Int32[Array, "..."]:
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def _argmax_by_class(
    scores: Float[Array, "N h w C"], size: Size, align_corners: bool
) -> Int32[Array, "N H W"]:
    height, width, classes = scores.shape[1:]
    rows = sparse_interpolation(height, size[0], align_corners, scores.dtype)
    columns = sparse_interpolation(width, size[1], align_corners, scores.dtype)
    planes = scores.transpose(3, 0, 1, 2).astype(rows.elements.dtype)
    # Without the barrier, XLA splits the loop below into several loops.
    wide = lax.optimization_barrier(multiply(planes, columns, 3))

    def resized(index: int) -> jax.Array:
        return multiply(wide[index], rows, 1).astype(scores.dtype)

    # XLA computes all of the following in one loop, whose inner loop is over neighboring pixels.
    best, label = resized(0), jnp.zeros((len(scores), *size), jnp.int32)
    for index in range(1, classes):
        score = resized(index)
        larger = (score > best) | (jnp.isnan(score) & ~jnp.isnan(best))
        best, label = jnp.where(larger, score, best), jnp.where(larger, index, label)
    return label
