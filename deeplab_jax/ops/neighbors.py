"""Products of feature maps with sparse matrices along one axis, as sums of a few neighbors.

A row of a matrix of bilinear interpolation has at most two elements that are not zero. On CPUs, it
is faster to add the two samples with their weights than to multiply by the matrix: upsampling
33 × 33 pixels with 21 channels to 513 × 513 pixels needs 12 million multiplications, whereas two
matrix products need 190 million. The gradient is a product with the transposed matrix, whose rows
are sparse, too: after upsampling by the factor r, they have about 2·r elements.

docs/benchmarks.md has measurements; test_resize.py compares the results with loops over pixels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float

# Maximum number of neighbors whose sum is computed. With more, the program would become long, and
# a matrix product is as fast.
MAX_NEIGHBORS = 80


@dataclasses.dataclass(frozen=True, eq=False)
class SparseMatrix:
    """Matrix [target, source] with at most K nonzero elements per row.

    Attributes:
      columns: column of each element, int [K, target]; a column may occur twice.
      elements: value of each element, floating point [K, target]; may be zero.
      source: number of columns of the matrix.
    """

    columns: np.ndarray
    elements: np.ndarray
    source: int

    @functools.cached_property
    def transposed(self) -> "SparseMatrix":
        """The transposed matrix, [source, target]."""
        target = self.columns.shape[1]
        rows = np.broadcast_to(np.arange(target), self.columns.shape)
        nonzero = self.elements != 0
        rows, columns, elements = rows[nonzero], self.columns[nonzero], self.elements[nonzero]
        order = np.argsort(columns, kind="stable")
        rows, columns, elements = rows[order], columns[order], elements[order]
        counts = np.bincount(columns, minlength=self.source)
        rank = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (max(1, counts.max()), self.source)
        transposed = SparseMatrix(
            np.zeros(shape, self.columns.dtype), np.zeros(shape, elements.dtype), target
        )
        transposed.columns[rank, columns] = rows
        transposed.elements[rank, columns] = elements
        return transposed

    def dense(self) -> np.ndarray:
        """Returns all elements of the matrix, [target, source]."""
        dense = np.zeros((self.columns.shape[1], self.source), self.elements.dtype)
        for columns, elements in zip(self.columns, self.elements, strict=True):
            np.add.at(dense, (np.arange(len(dense)), columns), elements)
        return dense


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def multiply(maps: Float[Array, "..."], matrix: SparseMatrix, axis: int) -> Float[Array, "..."]:
    """Multiplies every line of samples along one axis of feature maps by a sparse matrix.

    Args:
      maps: feature maps, floating point, with `source` samples along the axis.
      matrix: matrix [target, source]; its elements have the dtype of `maps`.
      axis: index of the axis, not negative.

    Returns:
      Maps in the dtype of `maps`, with `target` samples along the axis.
    """
    before, after = maps.shape[:axis], maps.shape[axis + 1 :]
    # All axes after the given one are joined, so that loops over samples are long.
    lines = maps.reshape(*before, matrix.source, -1)
    if len(matrix.columns) > MAX_NEIGHBORS:
        dense = matrix.dense()
        product = jnp.einsum("ts,...sc->...tc", dense, lines, precision=lax.Precision.HIGHEST)
    else:
        at = (slice(None),) * axis
        terms = [
            lines.at[(*at, columns)].get(mode="promise_in_bounds") * elements[:, None]
            for columns, elements in zip(matrix.columns, matrix.elements, strict=True)
        ]
        product = functools.reduce(jnp.add, terms)
    return product.reshape(*before, matrix.columns.shape[1], *after)


def _forward(
    maps: Float[Array, "..."], matrix: SparseMatrix, axis: int
) -> tuple[Float[Array, "..."], None]:
    return multiply(maps, matrix, axis), None


def _backward(
    matrix: SparseMatrix, axis: int, _: None, cotangent: Float[Array, "..."]
) -> tuple[Float[Array, "..."]]:
    return (multiply(cotangent, matrix.transposed, axis),)


multiply.defvjp(_forward, _backward)
