"""Convolution of an upsampled coarse map concatenated with a fine map, without upsampling first.

Bilinear upsampling is linear and acts on each channel alone. The matrix products over channels can
therefore be computed first, at the size of the coarse map. In the decoder of DeepLab v3+ at
output stride 16, the coarse map has a sixteenth of the pixels of the fine map. Two products with
small constant matrices then interpolate the results, shift them by the distances of the taps, and
add them up.

This method is used on CPUs at stride 1, if the fine map has at least four times the pixels of the
coarse map. For the 3×3 convolution that docs/benchmarks.md lists, the outputs and gradients take
39 ms. If the coarse map is upsampled first, they take 154 ms. test_joined_maps.py compares the
results.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import batch_is_sharded, dispatch
from deeplab_jax.ops.resize import (
    accurate_dtype,
    interpolation_matrix,
    resize_bilinear,
)
from deeplab_jax.ops.sharded_rows import HaloMaps
from deeplab_jax.ops.xla_convolution import Kernel, Outputs, Window

# Minimum ratio of the number of pixels of the fine map to that of the coarse map.
LEAST_UPSAMPLING = 4
# Maximum size, in bytes, of the copies of an interpolation matrix that are in memory at a time.
MAX_COPIED_BYTES = 2**28


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JoinedMaps:
    """Concatenation of a bilinearly upsampled coarse map and a fine map, computed when needed.

    Attributes:
      coarse: coarse map, [N, h, w, C].
      fine: fine map, [N, H, W, D].
      align_corners: whether the upsampling aligns corners, see `resize_bilinear`.
    """

    coarse: jax.Array
    fine: jax.Array
    align_corners: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [N, H, W, C + D] of the upsampled coarse map concatenated with the fine map."""
        return *self.fine.shape[:3], self.coarse.shape[-1] + self.fine.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the two maps and of their concatenation."""
        return self.fine.dtype

    def astype(self, dtype: jnp.dtype) -> "JoinedMaps":
        """Converts the coarse and the fine map to another dtype."""
        coarse, fine = self.coarse.astype(dtype), self.fine.astype(dtype)
        return dataclasses.replace(self, coarse=coarse, fine=fine)

    def array(self) -> Float[Array, "N H W C"]:
        """Upsamples the coarse map and concatenates it with the fine map: [N, H, W, C + D]."""
        size = self.fine.shape[1:3]
        upsampled = resize_bilinear(self.coarse, size, align_corners=self.align_corners)
        return jnp.concatenate([upsampled, self.fine], axis=-1)


def as_array(inputs: Float[Array, "N H W C"] | JoinedMaps | HaloMaps) -> Float[Array, "N H W C"]:
    """Returns the array that `inputs` represent. An array is returned unchanged."""
    if isinstance(inputs, HaloMaps):
        return inputs.maps
    return inputs.array() if isinstance(inputs, JoinedMaps) else inputs


def convolution_of_joined(
    maps: JoinedMaps,
    kernel: Kernel,
    convolve: Callable[[jax.Array, jax.Array], jax.Array],
    window: Window,
) -> Outputs:
    """Computes `convolve(maps.array(), kernel)`; on CPUs, upsampling is avoided if that is faster.

    Args:
      maps: inputs of the convolution.
      kernel: [k, k, C + D, E] for C channels of the coarse map and D of the fine map.
      convolve: function that convolves an array with a kernel.
      window: kernel size, rates, padding and stride of that convolution.
    """

    def by_parts(maps: JoinedMaps, kernel: jax.Array) -> jax.Array:
        channels = maps.coarse.shape[-1]
        upsampled = _convolution_of_upsampled(maps, kernel[:, :, :channels], window)
        return upsampled + convolve(maps.fine, kernel[:, :, channels:])

    def whole(maps: JoinedMaps, kernel: jax.Array) -> jax.Array:
        return convolve(maps.array(), kernel)

    sides = (*maps.coarse.shape[1:3], *maps.fine.shape[1:3])
    known = all(isinstance(side, int) for side in sides)
    if window.stride > 1 or not known:
        return whole(maps, kernel)
    if sides[2] * sides[3] < LEAST_UPSAMPLING * sides[0] * sides[1]:
        return whole(maps, kernel)
    return dispatch(whole, by_parts, maps, kernel)


def _convolution_of_upsampled(maps: JoinedMaps, kernel: Kernel, window: Window) -> Outputs:
    """Computes the convolution of the upsampled coarse map alone, [N, P, Q, E].

    Args:
      maps: coarse map to upsample and convolve, and fine map, of which only the size is used.
      kernel: [k, k, C, E], the part of the kernel for the channels of the coarse map.
      window: window of the convolution.
    """
    dtype = accurate_dtype(maps.coarse.dtype)
    coarse, kernel = maps.coarse.astype(dtype), kernel.astype(dtype)
    batch, height, width, channels = coarse.shape
    rows, columns = (
        _interpolation_at_taps(
            interpolation_matrix(source, target, maps.align_corners, dtype), window.size, rate, edge
        )
        for source, target, rate, edge in zip(
            (height, width), maps.fine.shape[1:3], window.rates, window.padding, strict=True
        )
    )
    flat = coarse.reshape(-1, channels)
    by_tap = [
        [jnp.dot(flat, tap).reshape(batch, height, width, -1) for tap in row] for row in kernel
    ]
    # [N, k·h, k·w, E]: the first h rows are the products with the first row of taps, the next h
    # rows those with the second row of taps, and so on; columns likewise.
    products = jnp.concatenate([jnp.concatenate(row, axis=2) for row in by_tap], axis=1)
    lines = products.reshape(batch * window.size * height, window.size * width, -1)
    wide = _interpolate_lines(columns, lines).reshape(batch, window.size * height, -1)
    outputs = _interpolate_lines(rows, wide)
    return outputs.reshape(batch, len(rows), len(columns), -1).astype(maps.coarse.dtype)


def _interpolate_lines(
    matrix: Float[Array, "t s"], lines: Float[Array, "M s C"]
) -> Float[Array, "M t C"]:
    """Multiplies each of M lines of s pixels by an interpolation matrix, to get t pixels per line.

    A batched product with M copies of the matrix is used, because the result of a single product
    with one matrix would have the shape [t, M, C] and would have to be transposed. If the copies
    would take more than 256 MiB, as for images of several megapixels, the lines are multiplied in
    blocks of equal size.
    """
    matrix, count = matrix.astype(lines.dtype), lines.shape[0]

    def product(lines: jax.Array) -> jax.Array:
        matrices = jnp.broadcast_to(matrix, (lines.shape[0], *matrix.shape))
        over = (((2,), (1,)), ((0,), (0,)))
        return lax.dot_general(matrices, lines, over, precision=lax.Precision.HIGHEST)

    most = max(1, MAX_COPIED_BYTES // (matrix.size * matrix.dtype.itemsize))
    # The batch size may be symbolic. A loop over a sharded batch would send it to every device.
    if not isinstance(count, int) or count <= most or batch_is_sharded():
        return product(lines)
    blocks = -(-count // most)
    padded = jnp.pad(lines, ((0, -count % blocks), (0, 0), (0, 0)))
    products = lax.map(product, padded.reshape(blocks, -1, *lines.shape[1:]))
    return products.reshape(-1, *products.shape[2:])[:count]


def _interpolation_at_taps(
    matrix: Float[Array, "t s"], taps: int, rate: int, edge: tuple[int, int]
) -> Float[Array, "outputs ks"]:
    """Returns a matrix [outputs, taps·source] that interpolates lines of pixels and adds them up.

    The matrix is to be multiplied by the concatenation of `taps` lines of source pixels, one for
    each tap of a kernel. The product with it interpolates and pads each line, shifts it by the
    distance of its tap, and adds up the lines.

    Args:
      matrix: interpolation along one axis, [target, source].
      taps: number of taps along the axis.
      rate: distance between neighboring taps, in target pixels.
      edge: number of zeros before and after the interpolated pixels.
    """
    padded = jnp.pad(matrix, (edge, (0, 0)))
    outputs = len(padded) - (taps - 1) * rate
    return jnp.concatenate([padded[tap * rate : tap * rate + outputs] for tap in range(taps)], 1)
