"""Finds and numbers the vertices of the permutohedral lattice around points."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float, Int32


def embed(
    features: Float[Array, "d N"],
) -> tuple[Int32[Array, "v N"], Int32[Array, "v N"], Float[Array, "v N"]]:
    """Finds the simplex around each point, and the barycentric coordinates of the point in it.

    The d-dimensional lattice is embedded in the hyperplane Σ x = 0 of a (d+1)-dimensional space.
    Each vertex has a class k in 0..d: all its coordinates are equal to k modulo d+1. A simplex has
    one vertex of each class. The coordinates of the vertex of class k are (d+1)·cell + k with an
    integer vector `cell`. This function returns `corner` and `rank`, from which the cell follows:
    cell = corner − (rank > d − k).

    Args:
      features: [d, N], floating point, positions of the points, in units of the standard deviation
        of the kernel.

    Returns:
      corner: int32 [d+1, N], coordinates of the vertex of class 0, divided by d+1.
      rank: int32 [d+1, N], rank of each coordinate by the difference between the point and the
        vertex of class 0. The coordinate with the largest difference has rank 0.
      weights: [d+1, N], barycentric weights of the vertices of classes 0..d, which sum to 1.

    Source: Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral
    lattice", Eurographics 2010, section 3.
    """
    dimensions = features.shape[0]
    elevated = _elevate(features)
    corner = jnp.round(elevated / (dimensions + 1)).astype(jnp.int32)
    left_over = [e - (dimensions + 1) * c for e, c in zip(elevated, corner, strict=True)]
    rank = jnp.stack(_ranks(left_over)) + jnp.sum(corner, axis=0, dtype=jnp.int32)
    # The rounded coordinates may not sum to 0. The coordinates with the largest rounding errors are
    # then corrected.
    step = (rank < 0).astype(jnp.int32) - (rank > dimensions)
    corner, rank = corner + step, rank + (dimensions + 1) * step
    offset = elevated / (dimensions + 1) - corner
    return corner, rank, _barycentric(offset, rank)


def vertex_cells(
    corner: Int32[Array, "v N"], rank: Int32[Array, "v N"], vertex_class: int
) -> Int32[Array, "v N"]:
    """Returns, for each point, the cell of its vertex of class `vertex_class`, int32 [d+1, N].

    `embed` defines the classes. The coordinates of a vertex of class k are (d+1)·cell + k.

    Args:
      corner: int32 [d+1, N], coordinates of the vertex of class 0, divided by d+1.
      rank: int32 [d+1, N], rank of each coordinate by the difference between the point and the
        vertex of class 0. The coordinate with the largest difference has rank 0.
      vertex_class: class k of the vertices, 0..d.
    """
    return corner - (rank > rank.shape[0] - 1 - vertex_class)


def _elevate(features: Float[Array, "d N"]) -> Float[Array, "v N"]:
    """Maps points into the hyperplane Σ x = 0, and scales them to the lattice; returns [d+1, N].

    One standard deviation of the kernel is scaled to a length of √(2/3)·(d+1). The reason is that
    splatting, blurring and slicing together have a variance of 2/3·(d+1)² along each axis.
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
    """Ranks the arrays by their values, separately at each position.

    The array with the largest value at a position has rank 0 there. Arrays with equal values are
    ranked in the order of the list.

    Args:
      values: arrays of equal shape.

    Returns:
      For each array, its rank at each position, int32.
    """
    ranks = [jnp.zeros(values[0].shape, jnp.int32) for _ in values]
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            below = (values[first] < values[second]).astype(jnp.int32)
            ranks[first] += below
            ranks[second] += 1 - below
    return ranks


def _barycentric(offset: Float[Array, "v N"], rank: Int32[Array, "v N"]) -> Float[Array, "v N"]:
    """Computes the barycentric weights of the d+1 vertices around each point, [d+1, N].

    The offsets of each point are sorted in ascending order. The weights of the vertices of classes
    1..d are the d differences between successive sorted offsets. The vertex of class 0 has the
    weight with which the weights of a point sum to 1.

    Args:
      offset: [d+1, N], difference between each point and its vertex of class 0, divided by d+1.
      rank: int32 [d+1, N], rank of each offset of a point; the largest offset has rank 0.
    """
    size = offset.shape[0]
    # Python sums of a few rows are faster than a reduction over the short first axis.
    ordered = [
        sum(jnp.where(r == place, o, 0) for r, o in zip(rank, offset, strict=True))
        for place in range(size)
    ]
    weights = [ordered[size - 1 - k] - ordered[size - k] for k in range(1, size)]
    return jnp.stack([1 + ordered[-1] - ordered[0], *weights])


class Vertices(NamedTuple):
    """Vertices of the lattice around N points, and all (d+1)·N pairs (point, vertex).

    The simplex around a point has d+1 vertices, one of each class 0..d (`embed` defines the class
    of a vertex). Each vertex has an int64 key, which is computed from its coordinates, and an
    index. The indices 0, 1, … follow the order of the keys.

    Attributes:
      vertex: int32 [d+1, N], index of the vertex of each class (rows) around each point (columns).
      weight: [d+1, N], barycentric weights of these vertices; 0 for padding points.
      point, point_weight: [(d+1)·N], index of the point, and its weight for the vertex, in each
        pair (point, vertex). The pairs are sorted by vertex.
      key, number: [(d+1)·N], key and index of the vertex in each pair, in the same order.
      axis_shift: int64 [d+1, d+1], number to add to the key of a vertex of each class (rows), to
        get the key of its next neighbor along each axis (columns).
      num_vertices: int32 scalar, number of vertices.
      fits: bool scalar, whether 63 bits are enough for the keys, and for the integers that are
        sorted to compute them.
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
    """Finds and numbers the vertices around points; requires `jax_enable_x64`.

    Args:
      features: [d, N], floating point, positions of the points, in units of the standard deviation
        of the kernel.
      num_points: int32 scalar, number of points. If `features` has more columns, the last columns
        are padding and get the weight 0.
    """
    classes, points = features.shape[0] + 1, features.shape[1]
    corner, rank, weight = embed(features)
    weight = jnp.where(jnp.arange(points) < num_points, weight, 0)
    codes, shift, span, keys_fit = _codes(corner, rank)
    # Code and point are packed into one integer, so that the sort has a single operand.
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
    """Encodes the cell of each vertex, int32 [d+1], as one integer with a mixed radix.

    `embed` defines the cell and the class of a vertex. The digits are the first d coordinates of
    the cell. The last coordinate follows from them, because the coordinates of a vertex sum to 0.

    The next neighbor along axis j of a vertex of class k > 0 has class k−1, and coordinate j of its
    cell is larger by 1. The next neighbor of a vertex of class 0 has class d, and all coordinates
    of its cell except j are smaller by 1.

    Args:
      corner, rank: int32 [d+1, N], results of `embed`.

    Returns:
      Tuple of four arrays:

      * codes of the vertices of each class (rows) around each point (columns), int64 [d+1, N];
      * `axis_shift` of `Vertices`;
      * number of possible codes as int64, which may overflow;
      * the same number as float64, to detect the overflow.
    """
    dimensions = corner.shape[0] - 1
    # The range is extended by one cell for the vertices, and by another one for their neighbors.
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
    """Assigns a number to each run of equal codes.

    A run does not extend into the next row. The runs are numbered from 0, and the numbers continue
    from one row to the next.

    Args:
      code: int64 [d+1, N], each row in ascending order.

    Returns:
      int32 [(d+1)·N], number of the run that each code belongs to, in row-major order.
    """
    first = jnp.ones((code.shape[0], 1), bool)
    new = jnp.concatenate([first, code[:, 1:] != code[:, :-1]], axis=1).ravel()
    return jnp.cumsum(new, dtype=jnp.int32) - 1
