"""Averages over a map and over windows of it."""

import functools
import re

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.ops.platform import named

Pair = tuple[int, int]

# Names of the two averages in portable programs; the second carries window and stride.
MEAN_NAME = "mean_over_map"
WINDOWS_NAME = "mean_over_windows_{}x{}_stride_{}x{}"


def mean_over_map(inputs: jax.Array) -> jax.Array:
    """Returns each channel's mean.

    Args:
      inputs: [N, H, W, C], floating point.

    Returns:
      [N, 1, 1, C] in the dtype of the inputs.
    """
    return named(MEAN_NAME, lambda inputs: jnp.mean(inputs, (1, 2), keepdims=True), inputs)


def mean_over_windows(inputs: jax.Array, window: Pair, stride: Pair = (1, 1)) -> jax.Array:
    """Returns averages over windows that lie within a map, whose size may be a symbol.

    A window is cut to the map where the map is smaller. The map's size enters when the program
    runs: both averages are products with matrices that the program computes from it.

    Args:
      inputs: [N, H, W, C], floating point; H and W may be symbols of `jax.export`.
      window: rows and columns.
      stride: of the windows.

    Returns:
      [N, H', W', C] in the dtype of the inputs, H' = (H − min(window, H)) // stride + 1.
    """
    average = functools.partial(_average, window=window, stride=stride)
    return named(WINDOWS_NAME.format(*window, *stride), average, inputs)


def parse_windows_name(name: str) -> tuple[Pair, Pair] | None:
    """Returns window and stride of a name that `mean_over_windows` gave, None of others."""
    found = re.fullmatch(WINDOWS_NAME.format(*[r"(\d+)"] * 4), name)
    if found is None:
        return None
    rows, columns, down, across = map(int, found.groups())
    return (rows, columns), (down, across)


def _average(inputs: jax.Array, window: Pair, stride: Pair) -> jax.Array:
    rows, columns = (
        _window_matrix(*axis, inputs.dtype)
        for axis in zip(inputs.shape[1:3], window, stride, strict=True)
    )
    tall = jnp.einsum("vh,nhwc->nvwc", rows, inputs, precision=lax.Precision.HIGHEST)
    return jnp.einsum("uw,nvwc->nvuc", columns, tall, precision=lax.Precision.HIGHEST)


def _window_matrix(length: int, window: int, stride: int, dtype: jnp.dtype) -> jax.Array:
    """Returns [windows, length], in each row 1 / window at the pixels of one window."""
    # A maximum, for JAX sees that it is positive, whatever the length.
    windows = jax.core.max_dim(length - window, 0) // stride + 1
    window = jax.core.min_dim(window, length)
    first = lax.broadcasted_iota(jnp.int32, (windows, length), 0) * stride
    pixel = lax.broadcasted_iota(jnp.int32, (windows, length), 1)
    inside = (pixel >= first) & (pixel < first + window)
    return inside.astype(dtype) / window
