"""Bilinear resizing in the two conventions of the field, and averages over windows.

A resized map of scores is by far the largest array of a network: at output stride 4 it has 16 times
the size of the map before. Later operations often keep one number per pixel, so they resize some
rows at a time.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float, Int32, Shaped
from deeplab_jax.ops.dispatch import dispatch, named
from deeplab_jax.ops.xla_convolution import Size

# Names of resizes in exported programs, by align_corners.
RESIZE_NAMES = {True: "resize_bilinear_align_corners", False: "resize_bilinear_half_pixel"}


def interpolation_matrix(
    source: int, target: int, align_corners: bool, dtype: jnp.dtype
) -> Float[Array, "t s"]:
    """Returns the [target, source] matrix of a one-dimensional linear interpolation.

    Positions are computed in integers: grid points that coincide get a weight of exactly 1.

    Args:
      source, target: number of samples before and after.
      align_corners: True puts sample t at t·(source−1)/(target−1), so that the corner pixels'
        centers coincide (Caffe's Interp, TensorFlow's align_corners); False at
        (t+½)·source/target − ½ (half-pixel centers, PyTorch's default).
      dtype: dtype of the maps to resize.

    Returns:
      [target, source] in `dtype`, but at least float32. In bfloat16, distances above 256 and most
      weights would be rounded, and the weights of a row would not add up to 1.
    """
    dtype = accurate_dtype(dtype)
    index = lax.broadcasted_iota(jnp.int32, (target, 1), 0)
    if align_corners:
        numerator, denominator = index * (source - 1), max(target - 1, 1)
    else:
        numerator, denominator = (2 * index + 1) * source - target, 2 * target
    numerator = jnp.clip(numerator, 0, (source - 1) * denominator)
    column = lax.broadcasted_iota(jnp.int32, (1, source), 1)
    distance = jnp.abs(numerator - column * denominator)
    return jnp.maximum(1 - distance.astype(dtype) / denominator, 0)


def accurate_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype for resizing maps of a dtype: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def scaled_size(size: Size, scale: float) -> tuple[int, int]:
    """Returns ⌊(d − 1)·scale + 1⌋ of both sides, the papers' size of a scaled image or map.

    Args:
      size: (H, W) in pixels; symbols of `jax.export` stay symbols.
      scale: factor on the size.

    Raises:
      ValueError: a side is a symbol, and the scale is not a multiple of 1/8.
    """

    def scaled(side: int | Any) -> int:
        if isinstance(side, int):
            return int((side - 1) * scale + 1)
        # Symbols only support integers. For eighths the product above is exact, too.
        if scale % 0.125:
            raise ValueError(f"scale={scale} of a symbolic size must be a multiple of 1/8")
        return (side - 1) * int(scale * 8) // 8 + 1

    height, width = map(scaled, size)
    return height, width


def resize_bilinear(
    inputs: Float[Array, "N h w C"], size: Size, *, align_corners: bool = True
) -> Float[Array, "N H W C"]:
    """Resizes maps by bilinear interpolation, without anti-aliasing when downsampling.

    Two matrix products: exact, differentiable without scatters, and fast on matrix units. In
    exported programs they are one call of a function named as in RESIZE_NAMES.

    Args:
      inputs: [N, H, W, C], floating point.
      size: (H', W') in pixels.
      align_corners: see `interpolation_matrix`.

    Returns:
      [N, H', W', C] in the dtype of the inputs. Weights and sums are at least float32, so
      bfloat16 maps are rounded once and a constant map stays constant.
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
    # Width first: the first product then runs on the small map.
    wide = jnp.einsum("Ww,nhwc->nhWc", columns, accurate, precision=lax.Precision.HIGHEST)
    tall = jnp.einsum("Hh,nhWc->nHWc", rows, wide, precision=lax.Precision.HIGHEST)
    return tall.astype(inputs.dtype)


# Maximum number of rows per block on CPUs. Fewer are slower, because several cores share a block;
# more are slower too and need more memory (docs/benchmarks.md).
ROWS_ON_CPUS = 176


@dataclasses.dataclass(frozen=True)
class ResizedRows:
    """Resized map whose rows are computed one block at a time.

    Attributes:
      wide: [N, h, W', C], map resized along its rows only, in at least float32.
      weights: [blocks, rows, h], interpolation along the columns, in blocks of rows; rows beyond
        the last are zeros.
      height: height H' of the whole resized map, in pixels.
      dtype: dtype of the map and of its resized blocks.
    """

    wide: jax.Array
    weights: jax.Array
    height: int
    dtype: jnp.dtype

    @classmethod
    def of(
        cls, inputs: Float[Array, "N h w C"], size: Size, rows: int, *, align_corners: bool = True
    ) -> "ResizedRows":
        """Returns the rows of `resize_bilinear(inputs, size)` in blocks.

        Args:
          inputs: [N, h, w, C], floating point.
          size: (H', W') in pixels.
          rows: maximum number of rows per block, at least 1. All blocks have the same size, with
            few rows of the last block beyond the map.
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

    def block(self, weights: Float[Array, "R h"]) -> Float[Array, "N R W C"]:
        """Returns the rows of one block of `weights`, [N, rows, W', C]."""
        rows = jnp.einsum("Hh,nhWc->nHWc", weights, self.wide, precision=lax.Precision.HIGHEST)
        return rows.astype(self.dtype)

    def split(
        self, array: Shaped[Array, "N H ..."], beyond: float
    ) -> Shaped[Array, "blocks N R ..."]:
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

    def join(self, blocks: Shaped[Array, "blocks N R ..."]) -> Shaped[Array, "N H ..."]:
        """Returns [N, H', …] of blocks as `split` gives them."""
        whole = blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, *blocks.shape[3:])
        return whole[:, : self.height]


def argmax_of_resized(
    scores: Float[Array, "N h w C"], size: Size, *, align_corners: bool = True
) -> Int32[Array, "N H W"]:
    """Returns the class with the largest score for every pixel of the resized map.

    On CPUs only one block of at most ROWS_ON_CPUS rows of the resized map is in memory at a time.
    Gain, 21 classes to 513 × 513: 13.1 MB for 25.0 and 17.8 ms for 23.5, in a batch of 8 90 MB for
    188 and 152 ms for 217 (docs/benchmarks.md). Reference test: test_resized_rows.py.

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
    return dispatch(whole, by_rows, scores)


def _argmax(scores: Float[Array, "... C"]) -> Int32[Array, "..."]:
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


Pair = tuple[int, int]

# Names of the two averages in exported programs; the second carries window and stride.
MEAN_NAME = "mean_over_map"
WINDOWS_NAME = "mean_over_windows_{}x{}_stride_{}x{}"


def mean_over_map(inputs: Float[Array, "N H W C"]) -> Float[Array, "N 1 1 C"]:
    """Returns each channel's mean.

    Args:
      inputs: [N, H, W, C], floating point.

    Returns:
      [N, 1, 1, C] in the dtype of the inputs.
    """
    return named(MEAN_NAME, lambda inputs: jnp.mean(inputs, (1, 2), keepdims=True), inputs)


def mean_over_windows(
    inputs: Float[Array, "N H W C"], window: Pair, stride: Pair = (1, 1)
) -> Float[Array, "N P Q C"]:
    """Returns averages over windows that lie within a map, whose size may be a symbol.

    A window is cut to the map where the map is smaller. The program computes the averages as
    products with matrices that depend on the map's size, which is known when it runs.

    Args:
      inputs: [N, H, W, C], floating point; H and W may be symbols of `jax.export`.
      window: rows and columns of a window, in pixels.
      stride: distance in pixels between windows.

    Returns:
      [N, H', W', C] in the dtype of the inputs, H' = (H − min(window, H)) // stride + 1.
    """
    average = functools.partial(_average, window=window, stride=stride)
    return named(WINDOWS_NAME.format(*window, *stride), average, inputs)


def parse_windows_name(name: str) -> tuple[Pair, Pair] | None:
    """Parses window and stride from a name made by `mean_over_windows`; None for other names."""
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
    """Returns [windows, length], in each row 1 / window at the pixels of one window."""
    # JAX knows that a maximum is positive, whatever the length.
    windows = jax.core.max_dim(length - window, 0) // stride + 1
    window = jax.core.min_dim(window, length)
    first = lax.broadcasted_iota(jnp.int32, (windows, length), 0) * stride
    pixel = lax.broadcasted_iota(jnp.int32, (windows, length), 1)
    inside = (pixel >= first) & (pixel < first + window)
    return inside.astype(dtype) / window
