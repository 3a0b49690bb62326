"""Where a point lies in the permutohedral lattice."""

import jax
import jax.numpy as jnp
import numpy as np


def embed(features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds the simplex around each point and the point's place in it.

    The lattice of d dimensions lives in the hyperplane Σ x = 0 of d+1. Its vertices have a class
    0..d: all coordinates of a vertex of class k leave the remainder k modulo d+1, and a simplex has
    one vertex of each class. So vertex k of a simplex is written as (d+1)·cell + k with integer
    cells, and cell = corner − (rank > d − k).

    Args:
      features: [d, N], floating point; a standard deviation of the kernel is 1.

    Returns:
      Corner int32 [d+1, N]; rank int32 [d+1, N], by which coordinate i is the rank[i]-th largest of
      those left over; barycentric weights [d+1, N] of the vertices, one a class, which sum to 1.

    Source: Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral
    lattice", Eurographics 2010, section 3.
    """
    dimensions = features.shape[0]
    elevated = _elevate(features)
    corner = jnp.round(elevated / (dimensions + 1)).astype(jnp.int32)
    left_over = [e - (dimensions + 1) * c for e, c in zip(elevated, corner, strict=True)]
    rank = jnp.stack(_ranks(left_over)) + jnp.sum(corner, axis=0, dtype=jnp.int32)
    # Rounding may leave the hyperplane: step back along the coordinates that it moved most.
    step = (rank < 0).astype(jnp.int32) - (rank > dimensions)
    corner, rank = corner + step, rank + (dimensions + 1) * step
    offset = elevated / (dimensions + 1) - corner
    return corner, rank, _barycentric(offset, rank)


def vertex_cells(corner: jax.Array, rank: jax.Array, vertex_class: int) -> jax.Array:
    """Returns int32 [d+1, N]: the cells of the simplices' vertices of one class."""
    return corner - (rank > rank.shape[0] - 1 - vertex_class)


def _elevate(features: jax.Array) -> jax.Array:
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
    """Returns for each of a few arrays how many of the others are larger, ties by position."""
    ranks = [jnp.zeros(values[0].shape, jnp.int32) for _ in values]
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            below = (values[first] < values[second]).astype(jnp.int32)
            ranks[first] += below
            ranks[second] += 1 - below
    return ranks


def _barycentric(offset: jax.Array, rank: jax.Array) -> jax.Array:
    """Returns [d+1, N]: differences of neighbours in the sorted order of the offsets."""
    size = offset.shape[0]
    # Sums of a few rows, not a reduction: that would run over the short axis first.
    ordered = [
        sum(jnp.where(r == place, o, 0) for r, o in zip(rank, offset, strict=True))
        for place in range(size)
    ]
    weights = [ordered[size - 1 - k] - ordered[size - k] for k in range(1, size)]
    return jnp.stack([1 + ordered[-1] - ordered[0], *weights])
