"""Bilinear resizing with and without aligned corners, and averages over windows.

The upsampled scores are by far the largest array of a network: at output stride 4 they are 16 times
as large as the scores before upsampling. Operations that keep only one number per pixel, such as
the argmax, therefore upsample a block of rows at a time.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float, Int32, Shaped
from deeplab_jax.ops.dispatch import dispatch, named
from deeplab_jax.ops.sharded_rows import interpolate_rows, sharding_of_rows
from deeplab_jax.ops.xla_convolution import Size

# Names of resize functions in exported programs, by `align_corners`.
RESIZE_NAMES = {True: "resize_bilinear_align_corners", False: "resize_bilinear_half_pixel"}


def interpolation_matrix(
    source: int, target: int, align_corners: bool, dtype: jnp.dtype
) -> Float[Array, "t s"]:
    """Returns the matrix [target, source] of linear interpolation along one axis.

    Positions are computed in integers. If an output sample is at the position of an input sample,
    the weight of that input sample is therefore exactly 1.

    Args:
      source, target: number of samples before and after the interpolation.
      align_corners: position of output sample t among the input samples. True:
        t·(source−1)/(target−1), so that the centers of the corner pixels coincide (Caffe's Interp,
        TensorFlow's align_corners). False: (t+½)·source/target − ½ (half-pixel centers, the
        default in PyTorch).
      dtype: dtype of the maps to resize.

    Returns:
      [target, source] in `dtype`, but at least float32: bfloat16 would round most weights, and the
      weights of an output sample would not add up to 1.
    """
    index = lax.broadcasted_iota(jnp.int32, (target, 1), 0)
    column = lax.broadcasted_iota(jnp.int32, (1, source), 1)
    return _weights(index, column, source, target, align_corners, accurate_dtype(dtype))


def _weights(
    index: jax.Array,
    column: jax.Array,
    source: int,
    target: int,
    align_corners: bool,
    dtype: jnp.dtype,
) -> Float[Array, "t s"]:
    """Returns the entries of `interpolation_matrix` in rows `index` and columns `column`."""
    numerator, denominator = _position(index, source, target, align_corners)
    numerator = jnp.clip(numerator, 0, (source - 1) * denominator)
    distance = jnp.abs(numerator - column * denominator)
    return jnp.maximum(1 - distance.astype(dtype) / denominator, 0)


def _position(index: Any, source: int, target: int, align_corners: bool) -> tuple[Any, int]:
    """Returns the source position of target sample `index`, as (numerator, denominator)."""
    if align_corners:
        return index * (source - 1), max(target - 1, 1)
    return (2 * index + 1) * source - target, 2 * target


def accurate_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype in which maps of `dtype` are resized: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def scaled_size(size: Size, scale: float) -> tuple[int, int]:
    """Returns the size of an image or map after scaling: ⌊(d − 1)·scale + 1⌋ for each side d.

    Args:
      size: (H, W) in pixels; each may be a symbolic dimension of `jax.export`.
      scale: scale factor.

    Raises:
      ValueError: a side is symbolic, and the scale is not a multiple of 1/8.
    """

    def scaled(side: int | Any) -> int:
        if isinstance(side, int):
            # For example, 180 · 1.4 is slightly below 252 in floating point.
            return int((side - 1) * scale + 1 + 1e-6)
        # Symbolic dimensions support only integers. For multiples of 1/8, this equals the above.
        if scale % 0.125:
            raise ValueError(f"scale={scale} must be a multiple of 1/8 if image sizes are symbolic")
        return (side - 1) * int(scale * 8) // 8 + 1

    height, width = map(scaled, size)
    return height, width


def resize_bilinear(
    inputs: Float[Array, "N h w C"], size: Size, *, align_corners: bool = True
) -> Float[Array, "N H W C"]:
    """Resizes maps by bilinear interpolation, without anti-aliasing when downsampling.

    The interpolation is computed as two matrix products, which are fast on matrix units and whose
    gradient needs no scatter. In an exported program, it is one call of a function. Converters to
    other formats recognize the name of this function, which is a value of `RESIZE_NAMES`.

    Args:
      inputs: [N, h, w, C], floating point.
      size: (H, W) of the result, in pixels.
      align_corners: whether the centers of the corner pixels coincide, see `interpolation_matrix`.

    Returns:
      [N, H, W, C] in the dtype of the inputs. Weights and sums are in at least float32, so
      bfloat16 maps are rounded only once and a constant map stays constant.
    """
    height, width = inputs.shape[1:3]
    if (height, width) == tuple(size):
        return inputs
    interpolate = functools.partial(_interpolate, size=size, align_corners=align_corners)
    return named(RESIZE_NAMES[align_corners], interpolate, inputs)


def _interpolate(
    inputs: Float[Array, "N h w C"], size: Size, align_corners: bool
) -> Float[Array, "N H W C"]:
    height, width = inputs.shape[1:3]
    rows = interpolation_matrix(height, size[0], align_corners, inputs.dtype)
    columns = interpolation_matrix(width, size[1], align_corners, inputs.dtype)
    accurate = inputs.astype(rows.dtype)
    # The width is resized first, while the map still has few rows.
    wide = jnp.einsum("Ww,nhwc->nhWc", columns, accurate, precision=lax.Precision.HIGHEST)
    sharding = sharding_of_rows(wide, size[0])
    if sharding is not None:
        return _interpolate_sharded(sharding, wide, size[0], align_corners).astype(inputs.dtype)
    tall = jnp.einsum("Hh,nhWc->nHWc", rows, wide, precision=lax.Precision.HIGHEST)
    return tall.astype(inputs.dtype)


def _interpolate_sharded(
    sharding: jax.sharding.NamedSharding,
    wide: Float[Array, "N h W C"],
    rows: int,
    align_corners: bool,
) -> Float[Array, "N H W C"]:
    height = wide.shape[1]

    def weights(targets: jax.Array, samples: jax.Array) -> jax.Array:
        return _weights(targets[:, None], samples[None], height, rows, align_corners, wide.dtype)

    sources = source_rows(height, rows, align_corners)
    return interpolate_rows(sharding, wide, sources, weights)


def source_rows(source: int, target: int, align_corners: bool) -> list[tuple[int, int]]:
    """Returns, for each row of a resized map, the first and last source row that it depends on.

    Args:
      source, target: number of rows before and after resizing.
      align_corners: see `interpolation_matrix`.
    """
    found = []
    for index in range(target):
        numerator, denominator = _position(index, source, target, align_corners)
        first = min(max(numerator, 0) // denominator, source - 1)
        found.append((first, min(first + 1, source - 1)))
    return found


# Maximum number of rows per block on CPUs. Smaller blocks are slower, because several cores share a
# block; larger ones are slower, too, and need more memory (docs/benchmarks.md).
ROWS_ON_CPUS = 176


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

    On CPUs, at most 176 rows of the resized scores are in memory at a time. For one image of
    513 × 513 pixels and 21 classes, this takes 13.1 MB and 17.8 ms; with all rows in memory, it
    takes 25.0 MB and 23.5 ms. For 8 images, it takes 90 MB and 152 ms instead of 188 MB and 217 ms
    (docs/benchmarks.md). test_resized_rows.py compares the result with the argmax of
    `resize_bilinear`.

    Args:
      scores: [N, h, w, C], floating point.
      size: (H, W) of the class map, in pixels.
      align_corners: whether resizing aligns corners, see `ops.resize_bilinear`.

    Returns:
      int32 [N, H, W].
    """

    def whole(scores: jax.Array) -> jax.Array:
        return _argmax(resize_bilinear(scores, size, align_corners=align_corners))

    def by_rows(scores: jax.Array) -> jax.Array:
        rows = ResizedRows.of(scores, size, ROWS_ON_CPUS, align_corners=align_corners)
        return rows.join(lax.map(lambda weights: _argmax(rows.block(weights)), rows.weights))

    if scores.shape[1:3] == tuple(size):
        return _argmax(scores)
    return dispatch(whole, by_rows, scores)


def _argmax(scores: Float[Array, "... C"]) -> Int32[Array, "..."]:
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


Pair = tuple[int, int]

# Names of the functions for averages in exported programs; the last contains window and stride.
MEAN_NAME = "mean_over_map"
PAIRS_NAME = "mean_over_pairs"
WINDOWS_NAME = "mean_over_windows_{}x{}_stride_{}x{}"


def mean_over_map(inputs: Float[Array, "N H W C"]) -> Float[Array, "N 1 1 C"]:
    """Returns the mean over H and W of each channel.

    Args:
      inputs: [N, H, W, C], floating point.

    Returns:
      [N, 1, 1, C] in the dtype of the inputs.
    """
    return named(MEAN_NAME, lambda inputs: jnp.mean(inputs, (1, 2), keepdims=True), inputs)


def mean_over_pairs(inputs: Float[Array, "N H W C"]) -> Float[Array, "N P Q C"]:
    """Averages windows of 2×2 pixels at stride 2.

    At the bottom and right borders, the average is over the pixels of the window inside the map.

    Args:
      inputs: [N, H, W, C], floating point.

    Returns:
      [N, ⌈H/2⌉, ⌈W/2⌉, C] in the dtype of the inputs.
    """
    return named(PAIRS_NAME, _mean_over_pairs, inputs)


def _mean_over_pairs(inputs: jax.Array) -> jax.Array:
    def sums(maps: jax.Array) -> jax.Array:
        # For an even number of pixels, no window reaches the padding.
        window, padding = (1, 2, 2, 1), ((0, 0), (0, 1), (0, 1), (0, 0))
        zero = np.zeros((), maps.dtype)
        return lax.reduce_window(maps, zero, lax.add, window, window, padding)

    return sums(inputs) / sums(jnp.ones((1, *inputs.shape[1:3], 1), inputs.dtype))


def mean_over_windows(
    inputs: Float[Array, "N H W C"], window: Pair, stride: Pair = (1, 1)
) -> Float[Array, "N P Q C"]:
    """Average pooling without padding, for maps whose size may be symbolic.

    A window that is larger than the map is reduced to the size of the map. The averages are
    computed as products with matrices. If the size is symbolic, the exported program builds these
    matrices at run time, for the actual size of the map.

    Args:
      inputs: [N, H, W, C], floating point; H and W may be symbolic dimensions of `jax.export`.
      window: height and width of the window, in pixels.
      stride: distance in pixels between neighboring windows.

    Returns:
      [N, P, Q, C] in the dtype of the inputs, P = (H − min(window, H)) // stride + 1 and Q
      likewise.
    """
    average = functools.partial(_average, window=window, stride=stride)
    return named(WINDOWS_NAME.format(*window, *stride), average, inputs)


def parse_windows_name(name: str) -> tuple[Pair, Pair] | None:
    """Parses the window and the stride from the name of a function in an exported program.

    Converters to other formats apply it to the name of every function that the program calls.

    Returns:
      (window, stride) if `mean_over_windows` gave the function this name; otherwise None.
    """
    found = re.fullmatch(WINDOWS_NAME.format(*[r"(\d+)"] * 4), name)
    if found is None:
        return None
    rows, columns, down, across = map(int, found.groups())
    return (rows, columns), (down, across)


def _average(
    inputs: Float[Array, "N H W C"], window: Pair, stride: Pair
) -> Float[Array, "N P Q C"]:
    rows, columns = (
        _window_matrix(*axis, inputs.dtype)
        for axis in zip(inputs.shape[1:3], window, stride, strict=True)
    )
    tall = jnp.einsum("vh,nhwc->nvwc", rows, inputs, precision=lax.Precision.HIGHEST)
    return jnp.einsum("uw,nvwc->nvuc", columns, tall, precision=lax.Precision.HIGHEST)


def _window_matrix(
    length: int, window: int, stride: int, dtype: jnp.dtype
) -> Float[Array, "windows length"]:
    """Returns the matrix [windows, length] that averages over windows along one axis.

    Each row is 1 / window at the pixels of one window, and 0 at all other pixels.

    Args:
      length: number of pixels along the axis.
      window: number of pixels in a window.
      stride: distance between neighboring windows, in pixels.
      dtype: dtype of the matrix.
    """
    # For a symbolic length, JAX can infer that this maximum is not negative.
    windows = jax.core.max_dim(length - window, 0) // stride + 1
    window = jax.core.min_dim(window, length)
    first = lax.broadcasted_iota(jnp.int32, (windows, length), 0) * stride
    pixel = lax.broadcasted_iota(jnp.int32, (windows, length), 1)
    inside = (pixel >= first) & (pixel < first + window)
    return inside.astype(dtype) / window
