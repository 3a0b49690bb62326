"""Averages of feature maps over windows."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import named

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
