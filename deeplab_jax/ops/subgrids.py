"""Atrous convolution by space to batch: every `rate`-th pixel of a map makes a subgrid.

The subgrids of a map become images of one batch, in which taps lie side by side, so the convolution
and both its gradients are ordinary ones, which cuDNN has.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.ops.padding import Padding
from deeplab_jax.ops.xla_convolution import xla_convolution

NO_PADDING = ((0, 0), (0, 0))


def convolution_over_subgrids(
    inputs: jax.Array,
    kernel: jax.Array,
    rates: tuple[int, int],
    padding: Padding,
    groups: int = 1,
) -> jax.Array:
    """Returns the convolution of stride 1; arguments and result as in `xla_convolution`."""
    size = kernel.shape[0]
    shape = [
        length + before + after - (size - 1) * rate
        for length, rate, (before, after) in zip(inputs.shape[1:3], rates, padding, strict=True)
    ]
    sides = [-(-length // rate) for length, rate in zip(shape, rates, strict=True)]
    reach = [side + size - 1 for side in sides]
    grids = to_subgrids(inputs, reach, rates, [before for before, _ in padding])
    outputs = xla_convolution(
        grids, kernel, stride=1, rates=(1, 1), padding=NO_PADDING, groups=groups
    )
    return from_subgrids(outputs, rates)[:, : shape[0], : shape[1]]


def to_subgrids(
    maps: jax.Array, sides: list[int], rates: tuple[int, int], before: list[int]
) -> jax.Array:
    """Maps [N, H, W, C] to [N·r·r', *sides, C], with zeros before and after H and W."""
    edges = [
        (zeros, side * rate - length - zeros, 0)
        for zeros, side, rate, length in zip(before, sides, rates, maps.shape[1:3], strict=True)
    ]
    zero = jnp.zeros((), maps.dtype)
    padded = lax.pad(maps, zero, ((0, 0, 0), *edges, (0, 0, 0)))
    (rows, columns), (rate, across) = sides, rates
    split = padded.reshape(len(maps), rows, rate, columns, across, maps.shape[-1])
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, rows, columns, maps.shape[-1])


def from_subgrids(grids: jax.Array, rates: tuple[int, int]) -> jax.Array:
    """Maps [N·r·r', h, w, C] to [N, h·r, w·r', C]: the inverse of `to_subgrids` without zeros."""
    rate, across = rates
    _, rows, columns, channels = grids.shape
    split = grids.reshape(-1, rate, across, rows, columns, channels)
    return split.transpose(0, 3, 1, 4, 2, 5).reshape(-1, rows * rate, columns * across, channels)
