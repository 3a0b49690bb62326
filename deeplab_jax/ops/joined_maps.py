"""A coarse map concatenated with a fine one, convolved without upsampling the coarse one.

Upsampling is linear, so it may follow a convolution's multiplications by channels: they are done at
the coarse size, which has a sixteenth of the pixels in DeepLab v3+'s decoder. The remaining shifts
by taps and interpolations are two products with small constant matrices.

Condition: CPUs, stride 1, at least LEAST_UPSAMPLING times the pixels. Gain: 20 to 23 ms where
upsampling first takes 71 to 76, with gradients 39 to 55 where it takes 154 to 173
(docs/benchmarks.md). Reference test: test_joined_maps.py.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import dispatch
from deeplab_jax.ops.resize import (
    accurate_dtype,
    interpolation_matrix,
    resize_bilinear,
)
from deeplab_jax.ops.xla_convolution import Kernel, Outputs, Window

# Least ratio of the fine map's pixels to the coarse map's.
LEAST_UPSAMPLING = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JoinedMaps:
    """Lazy concatenation, along channels, of a bilinearly upsampled coarse map and a fine map.

    Attributes:
      coarse: [N, h, w, C].
      fine: [N, H, W, D].
      align_corners: see `resize_bilinear`.
    """

    coarse: jax.Array
    fine: jax.Array
    align_corners: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, [N, H, W, C + D]."""
        return *self.fine.shape[:3], self.coarse.shape[-1] + self.fine.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the array."""
        return self.fine.dtype

    def astype(self, dtype: jnp.dtype) -> "JoinedMaps":
        """Returns both maps in another dtype."""
        coarse, fine = self.coarse.astype(dtype), self.fine.astype(dtype)
        return dataclasses.replace(self, coarse=coarse, fine=fine)

    def array(self) -> Float[Array, "N H W C"]:
        """Returns [N, H, W, C + D]."""
        size = self.fine.shape[1:3]
        upsampled = resize_bilinear(self.coarse, size, align_corners=self.align_corners)
        return jnp.concatenate([upsampled, self.fine], axis=-1)


def as_array(inputs: Float[Array, "N H W C"] | JoinedMaps) -> Float[Array, "N H W C"]:
    """Returns an array as it is, and joined maps as one array."""
    return inputs.array() if isinstance(inputs, JoinedMaps) else inputs


def convolution_of_joined(
    maps: JoinedMaps,
    kernel: Kernel,
    convolve: Callable[[jax.Array, jax.Array], jax.Array],
    window: Window,
) -> Outputs:
    """Returns `convolve(maps.array(), kernel)`, on CPUs at the coarse size where that is faster.

    Args:
      maps: inputs of the convolution.
      kernel: [k, k, C + D, E].
      convolve: convolution of an array.
      window: window of `convolve`.
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
    """Returns the convolution of the upsampled coarse map alone, [N, H', W', E]."""
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
    # [N, k·h, k·w, E]: for each row of taps all rows of pixels, for each column all columns.
    products = jnp.concatenate([jnp.concatenate(row, axis=2) for row in by_tap], axis=1)
    lines = products.reshape(batch * window.size * height, window.size * width, -1)
    wide = _interpolate_lines(columns, lines).reshape(batch, window.size * height, -1)
    outputs = _interpolate_lines(rows, wide)
    return outputs.reshape(batch, len(rows), len(columns), -1).astype(maps.coarse.dtype)


def _interpolate_lines(
    matrix: Float[Array, "t s"], lines: Float[Array, "M s C"]
) -> Float[Array, "M t C"]:
    """Maps lines of s pixels to lines of t pixels, with one product per line.

    One product for all lines would transpose the arrays.
    """
    matrices = jnp.broadcast_to(matrix.astype(lines.dtype), (lines.shape[0], *matrix.shape))
    over = (((2,), (1,)), ((0,), (0,)))
    return lax.dot_general(matrices, lines, over, precision=lax.Precision.HIGHEST)


def _interpolation_at_taps(
    matrix: Float[Array, "t s"], taps: int, rate: int, edge: tuple[int, int]
) -> Float[Array, "outputs ks"]:
    """Returns [outputs, taps·source]: the interpolated and padded line that each tap meets.

    Args:
      matrix: interpolation of the line, [target, source].
      taps: number of taps in a line.
      rate: distance in pixels between taps.
      edge: number of zeros before and after the line.
    """
    padded = jnp.pad(matrix, (edge, (0, 0)))
    outputs = len(padded) - (taps - 1) * rate
    return jnp.concatenate([padded[tap * rate : tap * rate + outputs] for tap in range(taps)], 1)
