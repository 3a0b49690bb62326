"""Gaussian filtering of values at scattered points, with a permutohedral lattice."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, Integer
from deeplab_jax.crf.vertices import Vertices, find_vertices
from deeplab_jax.errors import DeepLabError

# A vertex gathers its points in chunks. These are the candidates for the number of points per
# chunk, and the measured relative costs of gathering a point and of adding an extra chunk.
CHUNKS = (4, 5, 6, 8, 12)
GATHERING, ADDING = 1, 2
TRACED_CHUNK = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Lattice:
    """Permutohedral lattice with M vertices around N points in d dimensions.

    All shapes are static. The last vertex represents all neighbors that do not exist; its value is
    always 0. For 375×500 pixels in five dimensions, the arrays take 100 to 250 bytes of memory per
    pixel, and filtering C channels takes another 4·C·M/N bytes per pixel. With published CRF
    parameters, M/N is between 0.05 and 2.

    Attributes:
      vertex: int32 [d+1, N], indices of the vertices of the simplex around each point.
      weight: [d+1, N], barycentric weight of each point for these vertices.
      chunk_point: int32 [K, M + E], indices of the points around each vertex, in chunks of K
        points: first one chunk per vertex, then E extra chunks for vertices with more than K
        points.
      chunk_weight: [K, M + E], weights of these points; 0 where a chunk has fewer than K points.
      extra_vertex: int32 [E], index of the vertex of each extra chunk.
      neighbors: int32 [d+1, 2, M], indices of the next and the previous vertex along each axis.
    """

    vertex: jax.Array
    weight: jax.Array
    chunk_point: jax.Array
    chunk_weight: jax.Array
    extra_vertex: jax.Array
    neighbors: jax.Array

    def filter(self, values: Float[Array, "N C"]) -> Float[Array, "N C"]:
        """Filters the values of the points with a Gaussian kernel.

        For each point i at the position f_i, the result is Σ_j exp(−|f_i − f_j|² / 2)·values[j],
        approximately and up to a constant factor. The result is differentiable with respect to the
        values; the lattice is a constant.

        Args:
          values: [N, C], floating point. On CPUs, filtering is faster if C is a multiple of 8.

        Returns:
          Filtered values, [N, C].

        Source: Adams, Baek and Davis 2010, section 3: splat, blur with (½, 1, ½) along each axis,
        slice.
        """
        return _filter(self, jnp.asarray(values))


def build_lattice(
    features: Float[Array, "d N"], num_points: int | None = None, capacity: int | None = None
) -> Lattice:
    """Builds the lattice around points.

    Outside `jit`, the number of vertices depends on the points; it is rounded up, so that programs
    are compiled for only a few sizes. Inside `jit`, it is `capacity`.

    Args:
      features: [d, N], floating point, positions of the points, in units of the standard deviation
        of the kernel.
      num_points: number of points (default: N). The remaining columns are padding: they have no
        weight and must be copies of a point.
      capacity: maximum number of vertices inside `jit` (default: (d+1)·N, the largest possible
        number, several times that of typical images). If more vertices are needed, filtered
        values are NaN.

    Raises:
      DeepLabError: the points are so far apart that 63 bits cannot number the lattice vertices
        between them. Inside `jit`, no error is raised, and filtered values are NaN.
    """
    features = lax.stop_gradient(features)
    count = features.shape[1] if num_points is None else num_points
    # Keys have 64 bits: sorting a single operand is several times as fast as sorting two.
    with jax.enable_x64(True):
        vertices = find_vertices(features, jnp.asarray(count, jnp.int32))
        if isinstance(vertices.num_vertices, jax.core.Tracer):
            entries = vertices.point.size
            # One vertex more represents the neighbors that do not exist.
            size = min(capacity or entries, entries) + 1
            return _link(vertices, size, TRACED_CHUNK, entries // TRACED_CHUNK)
        if not vertices.fits:
            raise DeepLabError(
                "the standard deviations of a CRF kernel are too small for this image; increase "
                "bilateral_position_std, bilateral_color_std or smoothness_position_std"
            )
        return _link(vertices, *_sizes(vertices))


def round_up(count: int) -> int:
    """Rounds a number up to one of few sizes, so that few programs are compiled.

    The sizes are the multiples of 8 up to 64. Above 64, there are four sizes for each doubling.
    """
    step = 1 << max(count.bit_length() - 3, 3)
    return -(-count // step) * step


def _sizes(vertices: Vertices) -> tuple[int, int, int]:
    """Returns M, K and E of a `Lattice`: numbers of vertices, points per chunk and extra chunks.

    K minimizes the cost of gathering points. M and E are rounded up, so that few programs are
    compiled.
    """
    count = int(vertices.num_vertices)
    # A vertex with n points has ⌊(n − 1) / K⌋ extra chunks.
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
    """Computes `chunk_point`, `chunk_weight` and `extra_vertex` of a `Lattice`.

    Args:
      vertices: vertices, and pairs (point, vertex) sorted by vertex.
      starts: int32 [M + 1]; the pairs of vertex i have the positions starts[i]..starts[i + 1] − 1.
      chunk: K, the number of points per chunk.
      extra: E, the number of extra chunks.
    """
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
    """Computes `neighbors` of a `Lattice`, int32 [d+1, 2, M].

    Args:
      vertices: vertices, and pairs (point, vertex) sorted by vertex.
      starts: int32 [M + 1]; the pairs of vertex i have the positions starts[i]..starts[i + 1] − 1.
    """
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
    # Slicing is the transpose of splatting. The blur along one axis is its own transpose, so only
    # the order of the axes is reversed.
    return None, slice_(lattice, blur(lattice, splat(lattice, cotangent), reverse=True))


_filter.defvjp(_forward, _backward)


def splat(lattice: Lattice, values: Float[Array, "N C"]) -> Float[Array, "M C"]:
    """Adds the weighted values of all points to the vertices around them; returns [M, C]."""
    size = lattice.neighbors.shape[-1]
    # There are two sums, because the compiler would compute a single sum twice, once per slice.
    first, further = (
        _weighted_rows(lattice.chunk_weight[:, part], values, lattice.chunk_point[:, part])
        for part in (slice(None, size), slice(size, None))
    )
    return first.at[lattice.extra_vertex].add(further, indices_are_sorted=True)


def blur(
    lattice: Lattice, at_vertices: Float[Array, "M C"], reverse: bool = False
) -> Float[Array, "M C"]:
    """Blurs values at the vertices with the kernel (½, 1, ½) along one axis after the other.

    Args:
      lattice: lattice with M vertices.
      at_vertices: [M, C], values at the vertices.
      reverse: whether to start with the last axis, as the gradient of the blur requires.

    Returns:
      Blurred values, [M, C].
    """
    axes = reversed(lattice.neighbors) if reverse else lattice.neighbors
    for following, previous in axes:
        around = _rows(at_vertices, following) + _rows(at_vertices, previous)
        at_vertices = _computed_once(at_vertices + around / 2)
    return at_vertices


def slice_(lattice: Lattice, at_vertices: Float[Array, "M C"]) -> Float[Array, "N C"]:
    """Interpolates the values of the vertices at the points; returns [N, C]."""
    return _computed_once(_weighted_rows(lattice.weight, at_vertices, lattice.vertex))


def _computed_once(values: Float[Array, "M C"]) -> Float[Array, "M C"]:
    # Adds zeros in place, so that the rows are gathered only once. Otherwise XLA's CPU compiler
    # would fuse the gather into every operation that uses the result. It ignores optimization
    # barriers, but does not fuse the inputs of a scatter.
    return values.at[:1].add(jnp.zeros_like(values[:1]))


def _weighted_rows(
    weight: Float[Array, "K L"], values: Float[Array, "V C"], index: Integer[Array, "K L"]
) -> Float[Array, "L C"]:
    """Returns L weighted sums of K rows: row l is Σ_k weight[k, l]·values[index[k, l]]."""
    # A sum of K gathers compiles to one loop without intermediate arrays; a single gather does not.
    weight = weight.astype(values.dtype)
    return sum(w[:, None] * _rows(values, rows) for w, rows in zip(weight, index, strict=True))


def _rows(values: Float[Array, "V C"], index: Integer[Array, " L"]) -> Float[Array, "L C"]:
    return values.at[index.astype(jnp.uint32)].get(mode="promise_in_bounds")
