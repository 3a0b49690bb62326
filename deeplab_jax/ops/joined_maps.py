"""A coarse map beside a fine one, and the convolution that never enlarges the coarse one.

Enlarging is linear, so it may follow a convolution's multiplications by channels: they are done at
the coarse size, where there are a sixteenth of the pixels in DeepLab v3+'s decoder, and what
remains, shifts by taps and interpolation, is two products with small constant matrices.

Condition: CPUs, stride 1, at least LEAST_ENLARGEMENT times the pixels. Gain: 20 to 23 ms where
enlarging first takes 71 to 76, with gradients 39 to 55 where it takes 154 to 173
(docs/benchmarks.md). Reference test: test_joined_maps.py.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import dispatch
from deeplab_jax.ops.resize import (
    accurate_dtype,
    interpolate_lines,
    interpolation_matrix,
    resize_bilinear,
)
from deeplab_jax.ops.xla_convolution import Padding, Rate, rate_by_axis

# How many times the pixels of the coarse map the fine one must have.
LEAST_ENLARGEMENT = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JoinedMaps:
    """Channels of a coarse map, enlarged bilinearly, before those of a fine map; not yet computed.

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
        """That of the array [N, H, W, C + D]."""
        return *self.fine.shape[:3], self.coarse.shape[-1] + self.fine.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """That of the array."""
        return self.fine.dtype

    def astype(self, dtype: jnp.dtype) -> "JoinedMaps":
        """Returns both maps in another dtype."""
        coarse, fine = self.coarse.astype(dtype), self.fine.astype(dtype)
        return dataclasses.replace(self, coarse=coarse, fine=fine)

    def array(self) -> Float[Array, "N H W C"]:
        """Returns [N, H, W, C + D]."""
        size = self.fine.shape[1:3]
        enlarged = resize_bilinear(self.coarse, size, align_corners=self.align_corners)
        return jnp.concatenate([enlarged, self.fine], axis=-1)


def as_array(inputs: Float[Array, "N H W C"] | JoinedMaps) -> Float[Array, "N H W C"]:
    """Returns an array as it is, joined maps as the array that they stand for."""
    return inputs.array() if isinstance(inputs, JoinedMaps) else inputs


def convolution_of_joined(
    maps: JoinedMaps,
    kernel: Float[Array, "k k C D"],
    convolve: Callable[[jax.Array, jax.Array], jax.Array],
    rate: Rate,
    padding: Padding,
) -> Float[Array, "N P Q D"]:
    """Returns `convolve(maps.array(), kernel)`, on CPUs by way of the coarse map where that pays.

    Args:
      maps: what is convolved.
      kernel: [k, k, C + D, E].
      convolve: the convolution, of stride 1.
      rate, padding: its own, see `convolution`.
    """

    def by_parts(maps: JoinedMaps, kernel: jax.Array) -> jax.Array:
        channels = maps.coarse.shape[-1]
        enlarged = _convolution_of_enlarged(maps, kernel[:, :, :channels], rate, padding)
        return enlarged + convolve(maps.fine, kernel[:, :, channels:])

    def whole(maps: JoinedMaps, kernel: jax.Array) -> jax.Array:
        return convolve(maps.array(), kernel)

    sides = (*maps.coarse.shape[1:3], *maps.fine.shape[1:3])
    if not all(isinstance(side, int) for side in sides):
        return whole(maps, kernel)
    if sides[2] * sides[3] < LEAST_ENLARGEMENT * sides[0] * sides[1]:
        return whole(maps, kernel)
    return dispatch(whole, by_parts, maps, kernel)


def _convolution_of_enlarged(
    maps: JoinedMaps, kernel: Float[Array, "k k C D"], rate: Rate, padding: Padding
) -> Float[Array, "N P Q D"]:
    """Returns the convolution of the enlarged coarse map alone, [N, H', W', E]."""
    dtype = accurate_dtype(maps.coarse.dtype)
    coarse, kernel = maps.coarse.astype(dtype), kernel.astype(dtype)
    batch, height, width, channels = coarse.shape
    size = kernel.shape[0]
    rows, columns = (
        _shifted_interpolation(source, target, maps.align_corners, size, step, edges, dtype)
        for source, target, step, edges in zip(
            (height, width), maps.fine.shape[1:3], rate_by_axis(rate), padding, strict=True
        )
    )
    flat = coarse.reshape(-1, channels)
    by_tap = [
        [jnp.dot(flat, tap).reshape(batch, height, width, -1) for tap in row] for row in kernel
    ]
    # [N, k·h, k·w, E]: for each row of taps all rows of pixels, for each column all columns.
    products = jnp.concatenate([jnp.concatenate(row, axis=2) for row in by_tap], axis=1)
    lines = products.reshape(batch * size * height, size * width, -1)
    wide = interpolate_lines(columns, lines).reshape(batch, size * height, -1)
    outputs = interpolate_lines(rows, wide)
    return outputs.reshape(batch, len(rows), len(columns), -1).astype(maps.coarse.dtype)


def _shifted_interpolation(
    source: int,
    target: int,
    align_corners: bool,
    size: int,
    rate: int,
    edges: tuple[int, int],
    dtype: jnp.dtype,
) -> Float[Array, "outputs ks"]:
    """Returns [outputs, k·source]: enlarging and padding as each of k taps in a line sees them.

    Outside of the enlarged map a tap sees zeros: so are the matrix's rows there.
    """
    matrix = interpolation_matrix(source, target, align_corners, dtype)
    padded = jnp.pad(matrix, (edges, (0, 0)))
    outputs = target + sum(edges) - (size - 1) * rate
    return jnp.concatenate([padded[tap * rate : tap * rate + outputs] for tap in range(size)], 1)
