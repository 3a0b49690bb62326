"""Gaussian filtering of scattered points by a permutohedral lattice."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, Integer
from deeplab_jax.crf.vertices import Vertices, find_vertices
from deeplab_jax.errors import DeepLabError

# Numbers of points per chunk that a vertex gathers at a time, and the measured relative costs of
# gathering a point and of adding a further chunk to a vertex.
CHUNKS = (4, 5, 6, 8, 12)
GATHERING, ADDING = 1, 2
TRACED_CHUNK = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Lattice:
    """Vertices around N points of d dimensions, and their neighbors.

    All shapes are static. The last of the M vertices represents absent neighbors: nothing is added
    to it, and its value stays 0. For 375×500 pixels and five dimensions the arrays take 100 to
    250 bytes per pixel, the values at the vertices 4·C·M/N more; M/N is 0.05 to 2 with published
    parameters.

    Attributes:
      vertex: int32 [d+1, N], the vertices of the simplex around each point.
      weight: [d+1, N], the barycentric weights of each point.
      chunk_point: int32 [K, M + E], the points that vertices gather, in chunks of K: one chunk per
        vertex, then E further chunks for vertices with more than K points.
      chunk_weight: [K, M + E], the weights of these points; 0 where a chunk is not full.
      extra_vertex: int32 [E], the vertex of each further chunk.
      neighbors: int32 [d+1, 2, M], the next and the previous vertex along each axis.
    """

    vertex: jax.Array
    weight: jax.Array
    chunk_point: jax.Array
    chunk_weight: jax.Array
    extra_vertex: jax.Array
    neighbors: jax.Array

    def filter(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Returns approximately a constant times Σ_j exp(−|f_i − f_j|² / 2)·values[j].

        Differentiable in the values, by the exact transpose; the lattice is a constant.

        Args:
          values: [N, C], floating point. Multiples of 8 channels are faster on CPUs.

        Returns:
          [N, C].

        Source: Adams, Baek and Davis 2010, section 3: splat, blur by (½, 1, ½) along each axis,
        slice.
        """
        return _filter(self, jnp.asarray(values))


def build_lattice(
    features: Float[Array, "d N"], num_points: int | None = None, capacity: int | None = None
) -> Lattice:
    """Builds the lattice around points.

    Outside of `jit` the number of vertices follows from the points, rounded up so that few sizes
    are compiled. Inside of `jit` it is the capacity.

    Args:
      features: [d, N], floating point; the kernel's standard deviation is 1.
      num_points: number of points (default: N). The remaining columns are padding without weight,
        and must repeat a point.
      capacity: maximum number of vertices inside of `jit` (default: (d+1)·N + 1, the largest
        possible number, which is several times that of images). If the lattice has more vertices,
        filtered values are NaN.

    Raises:
      DeepLabError: the points spread over more deviations than keys of 63 bits can distinguish;
        inside of `jit` filtered values are NaN instead.
    """
    features = lax.stop_gradient(features)
    count = features.shape[1] if num_points is None else num_points
    # Keys are 64 bits wide: one sort of one operand is several times faster than one of two.
    with jax.enable_x64(True):
        vertices = find_vertices(features, jnp.asarray(count, jnp.int32))
        if isinstance(vertices.num_vertices, jax.core.Tracer):
            entries = vertices.point.size
            size = min(capacity or entries + 1, entries + 1)
            return _link(vertices, size, TRACED_CHUNK, entries // TRACED_CHUNK)
        if not vertices.fits:
            raise DeepLabError(
                "the points of a lattice spread over too many standard deviations; "
                "larger deviations of the kernel are legal"
            )
        return _link(vertices, *_sizes(vertices))


def round_up(count: int) -> int:
    """Returns the next of four sizes per octave, so that few programs are compiled."""
    step = 1 << max(count.bit_length() - 3, 3)
    return -(-count // step) * step


def _sizes(vertices: Vertices) -> tuple[int, int, int]:
    """Returns M, K and E of the cheapest chunks."""
    count = int(vertices.num_vertices)
    # A vertex with n points has ⌊(n − 1) / K⌋ chunks beyond its first.
    extra = {chunk: (vertices.point.size - count) // chunk for chunk in CHUNKS}

    def cost(chunk: int) -> int:
        return GATHERING * chunk * (count + extra[chunk]) + ADDING * extra[chunk]

    best = min(CHUNKS, key=cost)
    return round_up(count + 1), best, round_up(extra[best])


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _link(vertices: Vertices, size: int, chunk: int, extra: int) -> Lattice:
    starts = jnp.searchsorted(vertices.number, jnp.arange(size + 1, dtype=jnp.int32))
    starts = starts.astype(jnp.int32)
    point, weight, extra_vertex = _chunks(vertices, starts, chunk, extra)
    holds = vertices.fits & (vertices.num_vertices < size)
    return Lattice(
        vertex=vertices.vertex,
        weight=vertices.weight,
        chunk_point=point,
        chunk_weight=jnp.where(holds, weight, jnp.nan),
        extra_vertex=extra_vertex,
        neighbors=_neighbors(vertices, starts),
    )


def _chunks(
    vertices: Vertices, starts: jax.Array, chunk: int, extra: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `chunk_point`, `chunk_weight` and `extra_vertex` of a `Lattice`."""
    counts = starts[1:] - starts[:-1]
    further = jnp.maximum((counts - 1) // chunk, 0)
    ends = jnp.cumsum(further, dtype=jnp.int32)
    index = jnp.arange(extra, dtype=jnp.int32)
    owner = jnp.searchsorted(ends, index, side="right").astype(jnp.int32)
    owner = jnp.minimum(owner, counts.size - 1)
    place = index - (ends - further)[owner] + 1
    begin = jnp.concatenate([starts[:-1], starts[owner] + chunk * place])
    end = jnp.concatenate([starts[1:], starts[owner + 1]])
    position = begin + jnp.arange(chunk, dtype=jnp.int32)[:, None]
    inside = position < end
    position = jnp.where(inside, position, 0)
    weight = jnp.where(inside, vertices.point_weight[position], 0)
    return vertices.point[position], weight, owner


def _neighbors(vertices: Vertices, starts: jax.Array) -> jax.Array:
    """Returns `neighbors` of a `Lattice`."""
    size = starts.size - 1
    absent = size - 1
    here = jnp.arange(size, dtype=jnp.int32)
    there = here < vertices.num_vertices
    entry = jnp.minimum(starts[:-1], vertices.point.size - 1)
    key = jnp.where(there, vertices.key[entry], jnp.iinfo(jnp.int64).max)
    vertex_class = entry // vertices.vertex.shape[1]

    def along_axis(shift: jax.Array) -> jax.Array:
        wanted = key + shift[vertex_class]
        found = jnp.minimum(jnp.searchsorted(key, wanted).astype(jnp.int32), absent)
        meets = there & (key[found] == wanted)
        following = jnp.where(meets, found, absent)
        previous = jnp.full(size, absent, jnp.int32)
        previous = previous.at[jnp.where(meets, found, size)].set(here, mode="drop")
        return jnp.stack([following, previous])

    return lax.map(along_axis, vertices.axis_shift.T)


@jax.custom_vjp
def _filter(lattice: Lattice, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
    return slice_(lattice, blur(lattice, splat(lattice, values)))


def _forward(lattice: Lattice, values: jax.Array) -> tuple[jax.Array, Lattice]:
    return _filter(lattice, values), lattice


def _backward(lattice: Lattice, cotangent: jax.Array) -> tuple[None, jax.Array]:
    # Slicing is the transpose of splatting, and a blur is its own; the order of the blurs reverses.
    return None, slice_(lattice, blur(lattice, splat(lattice, cotangent), reverse=True))


_filter.defvjp(_forward, _backward)


def splat(lattice: Lattice, values: Float[Array, "N C"]) -> Float[Array, "M C"]:
    """Returns [M, C]: the weighted sums of the points' values at the vertices."""
    size = lattice.neighbors.shape[-1]
    # Two sums, because the compiler would compute two parts of one sum twice.
    first, further = (
        _weighted_rows(lattice.chunk_weight[:, part], values, lattice.chunk_point[:, part])
        for part in (slice(None, size), slice(size, None))
    )
    return first.at[lattice.extra_vertex].add(further, indices_are_sorted=True)


def blur(
    lattice: Lattice, at_vertices: Float[Array, "M C"], reverse: bool = False
) -> Float[Array, "M C"]:
    """Returns [M, C]: along one axis after the other, each vertex plus half of its neighbors."""
    axes = reversed(lattice.neighbors) if reverse else lattice.neighbors
    for following, previous in axes:
        around = _rows(at_vertices, following) + _rows(at_vertices, previous)
        at_vertices = _computed_once(at_vertices + around / 2)
    return at_vertices


def slice_(lattice: Lattice, at_vertices: Float[Array, "M C"]) -> Float[Array, "N C"]:
    """Returns [N, C]: the vertices' values interpolated at the points."""
    return _computed_once(_weighted_rows(lattice.weight, at_vertices, lattice.vertex))


def _computed_once(values: Float[Array, "M C"]) -> Float[Array, "M C"]:
    # Adds zeros, in place. XLA's CPU compiler ignores optimization barriers, but does not fuse the
    # inputs of a scatter into its readers, so the rows are gathered once and not once per reader.
    return values.at[:1].add(jnp.zeros_like(values[:1]))


def _weighted_rows(
    weight: Float[Array, "K L"], values: Float[Array, "V C"], index: Integer[Array, "K L"]
) -> Float[Array, "L C"]:
    """Returns Σ_k weight[k]·values[index[k]]; weight, index: [K, L], values: [·, C] → [L, C]."""
    # A sum of gathers compiles to one loop without intermediate arrays; one gather does not.
    weight = weight.astype(values.dtype)
    return sum(w[:, None] * _rows(values, rows) for w, rows in zip(weight, index, strict=True))


def _rows(values: Float[Array, "V C"], index: Integer[Array, " L"]) -> Float[Array, "L C"]:
    return values.at[index.astype(jnp.uint32)].get(mode="promise_in_bounds")
