"""Bilinear resizing of feature maps, with and without aligned corners."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import dispatch, named
from deeplab_jax.ops.neighbors import SparseMatrix, multiply
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
    """Returns the elements of `interpolation_matrix` in rows `index` and columns `column`."""
    numerator, denominator = _position(index, source, target, align_corners)
    numerator = jnp.clip(numerator, 0, (source - 1) * denominator)
    distance = jnp.abs(numerator - column * denominator)
    return jnp.maximum(1 - distance.astype(dtype) / denominator, 0)


@functools.lru_cache(maxsize=256)
def sparse_interpolation(
    source: int, target: int, align_corners: bool, dtype: jnp.dtype
) -> SparseMatrix:
    """Returns the nonzero elements of `interpolation_matrix`.

    Args:
      source, target, align_corners, dtype: see `interpolation_matrix`.
    """
    index = np.arange(target, dtype=np.int64)
    numerator, denominator = _position(index, source, target, align_corners)
    numerator = np.clip(numerator, 0, (source - 1) * denominator)
    first = numerator // denominator
    columns = np.stack([first, np.minimum(first + 1, source - 1)])
    # As in `_weights`, but a second sample after the last one would have distance 0 from it.
    distance = np.stack([numerator, (first + 1) * denominator]) - np.stack(
        [first * denominator, numerator]
    )
    accurate = accurate_dtype(dtype)
    elements = 1 - distance.astype(accurate) / accurate.type(denominator)
    return SparseMatrix(columns.astype(np.int32), elements, source)


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
    gradient needs no scatter. On CPUs, it is computed as weighted sums of neighbors. In an exported
    program, it is one call of a function. Converters to other formats recognize the name of this
    function, which is a value of `RESIZE_NAMES`.

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
    products = functools.partial(_by_matrix_products, size=size, align_corners=align_corners)
    neighbors = functools.partial(_from_neighbors, size=size, align_corners=align_corners)
    known = all(isinstance(side, int) for side in (*inputs.shape[1:3], *size))
    return dispatch(products, neighbors, inputs) if known else products(inputs)


def _by_matrix_products(
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


def _from_neighbors(
    inputs: Float[Array, "N h w C"], size: Size, align_corners: bool
) -> Float[Array, "N H W C"]:
    height, width = inputs.shape[1:3]
    rows = sparse_interpolation(height, size[0], align_corners, inputs.dtype)
    columns = sparse_interpolation(width, size[1], align_corners, inputs.dtype)
    wide = multiply(inputs.astype(rows.elements.dtype), columns, 2)
    return multiply(wide, rows, 1).astype(inputs.dtype)


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
