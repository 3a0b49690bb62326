"""Gradients of atrous kernels, in the forms that each platform runs fastest.

The subgrids of a map become images of one batch, in which taps lie side by side, so the convolution
and both its gradients are ordinary ones, which cuDNN has.

XLA's CPU compiler makes a convolution of it whose window is the whole map: it reaches 35 to 45 % of
the rate of matrix products, `kernel_gradient`, of cache's size, 60 to 80 %. On GPUs it does so
where taps lie apart: 70 to 175 TFLOP/s where matrix products reach 690, which `products_over_maps`
is for (docs/benchmarks.md).

Condition of `kernel_gradient`: CPUs, stride 1, one device has the whole batch, and the valid region
is not taken. Gain: 15 to 66 ms where XLA's takes 21 to 138. Condition of `products_over_maps`:
GPUs, rates above 1; its time has not been measured. Reference test: test_kernel_gradient.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.xla_convolution import Padding, Size, xla_convolution

NO_PADDING = ((0, 0), (0, 0))


def convolution_over_subgrids(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k I D"],
    rates: tuple[int, int],
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "N P Q D"]:
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
    maps: Float[Array, "N H W C"], sides: list[int], rates: tuple[int, int], before: list[int]
) -> Float[Array, "M h w C"]:
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


def from_subgrids(
    grids: Float[Array, "M h w C"], rates: tuple[int, int]
) -> Float[Array, "N H W C"]:
    """Maps [N·r·r', h, w, C] to [N, h·r, w·r', C]: the inverse of `to_subgrids` without zeros."""
    rate, across = rates
    _, rows, columns, channels = grids.shape
    split = grids.reshape(-1, rate, across, rows, columns, channels)
    return split.transpose(0, 3, 1, 4, 2, 5).reshape(-1, rows * rate, columns * across, channels)


# About as many pixels are multiplied at a time: more leave the cache, fewer cost more calls.
PIXELS_AT_A_TIME = 1024


def kernel_gradient(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "k k C D"]:
    """Returns Σ_i x[i + k·rate]·ȳ[i] for every tap k: the cotangent of the kernel at stride 1.

    Pixels of a row meet the taps of a kernel's row in one product: the cotangent lies side by side
    with itself, shifted by each tap's distance.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C, D], of which only shape and dtype count.
      cotangent: of the outputs, [N, H', W', D].
      rates: atrous rates of rows and columns.
      padding: zeros before and after H and W.

    Returns:
      [k, k, C, D] in the dtype of the kernel; sums are in float32 or wider.
    """
    size, channels, features = kernel.shape[0], *kernel.shape[2:]
    batch, height, width = cotangent.shape[0], cotangent.shape[1], inputs.shape[2]
    bands = -(-height * width // PIXELS_AT_A_TIME)
    rows = -(-height // bands)
    bands = -(-height // rows)
    beyond = bands * rows - height
    (top, bottom), (left, _) = padding
    inputs = jnp.pad(inputs, ((0, 0), (top, bottom + beyond), (0, 0), (0, 0)))
    cotangent = jnp.pad(cotangent, ((0, 0), (0, beyond), (0, 0), (0, 0)))
    reach = rows + (size - 1) * rates[0]
    precision = jnp.promote_types(jnp.float32, inputs.dtype)

    def add_band(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        corner = (index // bands, index % bands * rows, 0, 0)
        pixels = lax.dynamic_slice(inputs, corner, (1, reach, width, channels))[0]
        band = lax.dynamic_slice(cotangent, corner, (1, rows, *cotangent.shape[2:]))[0]
        side_by_side = _shifted(band, size, rates[1], left, width).astype(precision)
        pixels = pixels.astype(precision)
        return [
            total + _product(pixels[row * rates[0] : row * rates[0] + rows], side_by_side)
            for row, total in enumerate(sums)
        ], None

    zeros = [jnp.zeros((channels, size * features), precision)] * size
    sums, _ = lax.scan(add_band, zeros, jnp.arange(batch * bands))
    gradient = jnp.stack(sums).reshape(size, channels, size, features)
    return gradient.transpose(0, 2, 1, 3).astype(kernel.dtype)


def products_over_maps(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "k k C D"]:
    """Returns what `kernel_gradient` does, in a product over whole maps for each row of taps.

    The map of fewer channels lies side by side with itself, shifted by each tap's distance; the
    other one is read as it is.
    """
    size = kernel.shape[0]
    narrow, wide = inputs, cotangent
    # An output sees the pixel that lies a tap's distance after it; a pixel is seen by the output
    # that lies as far before.
    direction = 1
    if cotangent.shape[-1] <= inputs.shape[-1]:
        narrow, wide, direction = cotangent, inputs, -1
    rows = []
    for row in range(size):
        moved = [
            _moved(narrow, wide.shape[1:3], direction, (row, column), rates, padding)
            for column in range(size)
        ]
        rows.append(_outer_products(wide, jnp.concatenate(moved, axis=-1)))
    gradient = jnp.stack(rows).reshape(size, wide.shape[-1], size, narrow.shape[-1])
    order = (0, 2, 1, 3) if direction < 0 else (0, 2, 3, 1)
    return gradient.transpose(order).astype(kernel.dtype)


def gradient_over_subgrids(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "k k C D"]:
    """Returns what `kernel_gradient` does, as the gradient of a convolution of rate 1."""

    def convolve(kernel: jax.Array) -> jax.Array:
        return convolution_over_subgrids(inputs, kernel, rates, padding)

    return jax.linear_transpose(convolve, kernel)(cotangent)[0]


def gradient_of_dense_window(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "k k C D"]:
    """Returns what `kernel_gradient` does, picked from the gradient of a window without holes.

    The window strides by one pixel, so XLA gives it to cuDNN's backward filter. It has up to
    rate² times the taps: for small rates alone.
    """
    reach = [(kernel.shape[0] - 1) * rate + 1 for rate in rates]
    window = jax.ShapeDtypeStruct((*reach, *kernel.shape[2:]), kernel.dtype)

    def convolve(window: jax.Array) -> jax.Array:
        return xla_convolution(inputs, window, stride=1, rates=(1, 1), padding=padding)

    whole = jax.linear_transpose(convolve, window)(cotangent)[0]
    return whole[:: rates[0], :: rates[1]]


def xla_gradient(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "k k C D"]:
    """Returns what `kernel_gradient` does, as JAX and XLA derive it."""

    def convolve(kernel: jax.Array) -> jax.Array:
        return xla_convolution(inputs, kernel, stride=1, rates=rates, padding=padding)

    return jax.linear_transpose(convolve, kernel)(cotangent)[0]


def _moved(
    narrow: Float[Array, "N _ _ C"],
    shape: Size,
    direction: int,
    tap: tuple[int, int],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "N _ _ C"]:
    """Returns [N, *shape, C]: at each place what that tap joins it with, zero outside the map."""
    edges = [(0, 0, 0)]
    for axis in (0, 1):
        distance = tap[axis] * rates[axis] - padding[axis][0]
        before = -direction * distance
        edges.append((before, shape[axis] - narrow.shape[1 + axis] - before, 0))
    return lax.pad(narrow, jnp.zeros((), narrow.dtype), (*edges, (0, 0, 0)))


def _outer_products(
    wide: Float[Array, "N H W C"], side_by_side: Float[Array, "N H W D"]
) -> Float[Array, "C D"]:
    """Returns the sum over [N, H, W] of outer products, [C, k·D], in float32 or wider."""
    over = (((0, 1, 2), (0, 1, 2)), ((), ()))
    precision = jnp.promote_types(jnp.float32, wide.dtype)
    return lax.dot_general(wide, side_by_side, over, preferred_element_type=precision)


def _shifted(
    band: Float[Array, "R P D"], size: int, rate: int, left: int, width: int
) -> Float[Array, "R W kD"]:
    """Maps [R, W', D] to [R, W, k·D]: at each pixel what it adds to, for each column of taps."""
    shifts = [tap * rate - left for tap in range(size)]
    zero = jnp.zeros((), band.dtype)
    outputs = band.shape[1]
    parts = [
        lax.pad(band, zero, ((0, 0, 0), (shift, width - outputs - shift, 0), (0, 0, 0)))
        for shift in shifts
    ]
    return jnp.concatenate(parts, axis=-1)


def _product(
    pixels: Float[Array, "R W C"], cotangent: Float[Array, "R W D"]
) -> Float[Array, "C D"]:
    """Returns the sum over [R, W] of outer products, [C, k·D]."""
    over = (((0, 1), (0, 1)), ((), ()))
    return lax.dot_general(pixels, cotangent, over, precision=lax.Precision.HIGHEST)


# What the row `kernel_gradient` of `dispatch.ON_GPUS` chooses from.
CANDIDATES: dict[str, Callable[..., jax.Array]] = {
    "xla": xla_gradient,
    "products": products_over_maps,
    "subgrids": gradient_over_subgrids,
    "dense_window": gradient_of_dense_window,
}
