"""Positions of points in the permutohedral lattice, and the vertices around them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float, Int32


def embed(
    features: Float[Array, "d N"],
) -> tuple[Int32[Array, "v N"], Int32[Array, "v N"], Float[Array, "v N"]]:
    """Finds the simplex around each point and the point's position in it.

    The lattice of d dimensions lives in the hyperplane Σ x = 0 of d+1. Its vertices have a class
    0..d: all coordinates of a vertex of class k leave the remainder k modulo d+1, and a simplex has
    one vertex of each class. Vertex k of a simplex is therefore (d+1)·cell + k with integer
    cells, and cell = corner − (rank > d − k).

    Args:
      features: [d, N], floating point; a standard deviation of the kernel is 1.

    Returns:
      Corner int32 [d+1, N]; rank int32 [d+1, N]: coordinate i is the rank[i]-th largest of the
      remainders; barycentric weights [d+1, N] of the vertices, one per class, which sum to 1.

    Source: Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral
    lattice", Eurographics 2010, section 3.
    """
    dimensions = features.shape[0]
    elevated = _elevate(features)
    corner = jnp.round(elevated / (dimensions + 1)).astype(jnp.int32)
    left_over = [e - (dimensions + 1) * c for e, c in zip(elevated, corner, strict=True)]
    rank = jnp.stack(_ranks(left_over)) + jnp.sum(corner, axis=0, dtype=jnp.int32)
    # Rounding may leave the hyperplane: step back along the coordinates with the largest change.
    step = (rank < 0).astype(jnp.int32) - (rank > dimensions)
    corner, rank = corner + step, rank + (dimensions + 1) * step
    offset = elevated / (dimensions + 1) - corner
    return corner, rank, _barycentric(offset, rank)


def vertex_cells(
    corner: Int32[Array, "v N"], rank: Int32[Array, "v N"], vertex_class: int
) -> Int32[Array, "v N"]:
    """Returns int32 [d+1, N]: the cells of the simplices' vertices of one class."""
    return corner - (rank > rank.shape[0] - 1 - vertex_class)


def _elevate(features: Float[Array, "d N"]) -> Float[Array, "v N"]:
    """Returns [d+1, N]: the points in the hyperplane, scaled to the lattice.

    Splatting, blurring and slicing add up to a variance of 2/3·(d+1)² along each axis.
    """
    dimensions = features.shape[0]
    axis = np.arange(1, dimensions + 1)
    scale = np.sqrt(2 / 3) * (dimensions + 1) / np.sqrt(axis * (axis + 1))
    scaled = features * jnp.asarray(scale, features.dtype)[:, None]
    tail, rows = jnp.zeros_like(scaled[0]), []
    for index in reversed(range(dimensions)):
        rows.append(tail - (index + 1) * scaled[index])
        tail = tail + scaled[index]
    return jnp.stack([tail, *reversed(rows)])


def _ranks(values: list[jax.Array]) -> list[jax.Array]:
    """Returns for each array the number of arrays that are larger, ties broken by position."""
    ranks = [jnp.zeros(values[0].shape, jnp.int32) for _ in values]
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            below = (values[first] < values[second]).astype(jnp.int32)
            ranks[first] += below
            ranks[second] += 1 - below
    return ranks


def _barycentric(offset: Float[Array, "v N"], rank: Int32[Array, "v N"]) -> Float[Array, "v N"]:
    """Returns [d+1, N]: differences of neighbors in the sorted order of the offsets."""
    size = offset.shape[0]
    # Sums of a few rows: a reduction would run over the short axis first.
    ordered = [
        sum(jnp.where(r == place, o, 0) for r, o in zip(rank, offset, strict=True))
        for place in range(size)
    ]
    weights = [ordered[size - 1 - k] - ordered[size - k] for k in range(1, size)]
    return jnp.stack([1 + ordered[-1] - ordered[0], *weights])


class Vertices(NamedTuple):
    """Pairs of point and vertex, (d+1)·N in number, sorted by vertex; keys are int64.

    Attributes:
      vertex: int32 [d+1, N], the number of each point's vertex of each class.
      weight: [d+1, N], the weight of each point in this vertex.
      point, point_weight, key, number: [(d+1)·N], values of the sorted pairs; `number` is the
        number of the vertex.
      axis_shift: int64 [d+1, d+1], difference between the key of a vertex of a class and that of
        its neighbor along an axis.
      num_vertices: int32, number of vertices.
      fits: bool, whether the keys distinguish all vertices.
    """

    vertex: jax.Array
    weight: jax.Array
    point: jax.Array
    point_weight: jax.Array
    key: jax.Array
    number: jax.Array
    axis_shift: jax.Array
    num_vertices: jax.Array
    fits: jax.Array


@jax.jit
def find_vertices(features: Float[Array, "d N"], num_points: jax.Array) -> Vertices:
    """Numbers the vertices around points; requires `jax_enable_x64`.

    Args:
      features: [d, N], floating point.
      num_points: int32, number of points; the remaining columns have no weight.
    """
    classes, points = features.shape[0] + 1, features.shape[1]
    corner, rank, weight = embed(features)
    weight = jnp.where(jnp.arange(points) < num_points, weight, 0)
    codes, shift, span, keys_fit = _codes(corner, rank)
    # Code and point are packed into one number, so that the sort has a single operand.
    bits = points.bit_length()
    packed = codes << bits | jnp.arange(points, dtype=jnp.int64)
    packed = lax.sort(packed, dimension=1, is_stable=False)
    code, point = packed >> bits, (packed & ((1 << bits) - 1)).astype(jnp.int32)
    vertex_class = jnp.arange(classes, dtype=jnp.int32)[:, None]
    entry = (vertex_class * points + point).ravel()
    number = _number(code)
    vertex = jnp.zeros_like(number).at[entry].set(number, unique_indices=True)
    return Vertices(
        vertex=vertex.reshape(point.shape),
        weight=weight,
        point=point.ravel(),
        point_weight=weight.ravel()[entry],
        key=(vertex_class * span + code).ravel(),
        number=number,
        axis_shift=shift,
        num_vertices=number[-1] + 1,
        fits=keys_fit < 2.0 ** (63 - max(bits, classes.bit_length())),
    )


def _codes(corner: jax.Array, rank: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Numbers the cells that the points span, in a mixed radix.

    A neighbor along axis j has class k−1 instead of k and one cell more at j; from class 0 it has
    class d, the same cell at j and one less elsewhere. Coordinates sum to 0: d of them suffice.

    Returns:
      Codes int64 [d+1, N] by class; `axis_shift` of `Vertices`; the number of codes, int64, and
      as a float64 that cannot overflow.
    """
    dimensions = corner.shape[0] - 1
    # One cell below and above for the vertices, and one more for their neighbors.
    low = jnp.min(corner[:dimensions], axis=1) - 2
    spans = (jnp.max(corner[:dimensions], axis=1) - low + 2).astype(jnp.int64)
    products = jnp.cumprod(spans, dtype=jnp.int64)
    radix = jnp.concatenate([jnp.ones(1, jnp.int64), products[:-1], jnp.zeros(1, jnp.int64)])
    codes = []
    for vertex_class in range(dimensions + 1):
        cells = vertex_cells(corner, rank, vertex_class)
        digits = (cell - first for cell, first in zip(cells[:dimensions], low, strict=True))
        codes.append(sum(r * d for r, d in zip(radix[:dimensions], digits, strict=True)))
    span = products[-1]
    class_shift = jnp.full(dimensions + 1, -span).at[0].set(dimensions * span - jnp.sum(radix))
    shift = class_shift[:, None] + radix
    return jnp.stack(codes), shift, span, jnp.prod(spans.astype(jnp.float64))


def _number(code: jax.Array) -> jax.Array:
    """Returns int32 [(d+1)·N]: the number of each run of equal codes; code: int64, rows sorted."""
    first = jnp.ones((code.shape[0], 1), bool)
    new = jnp.concatenate([first, code[:, 1:] != code[:, :-1]], axis=1).ravel()
    return jnp.cumsum(new, dtype=jnp.int32) - 1
