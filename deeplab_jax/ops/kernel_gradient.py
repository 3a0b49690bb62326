"""Gradients of convolution kernels as matrix products.

XLA's CPU compiler makes a convolution of a kernel's gradient whose window is the whole map: it
reaches 35 to 45 % of the rate of matrix products, `kernel_gradient`, in blocks that fit into the
cache, 60 to 80 %. Its GPU compiler does so where taps lie apart: 70 to 175 TFLOP/s where matrix
products reach 690, which `products_over_maps` is for (docs/benchmarks.md).

Condition of `kernel_gradient`: CPUs, stride 1, one device has the whole batch, and the valid region
is not taken. Gain: 15 to 66 ms where XLA's takes 21 to 138. Condition of `products_over_maps`:
GPUs, stride 1, rates above 1. Reference test: test_kernel_gradient.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.xla_convolution import Inputs, Kernel, Outputs, Window, pad, place

# Approximate number of pixels multiplied at a time: more do not fit into the cache, fewer cost more
# calls.
PIXELS_AT_A_TIME = 1024


def kernel_gradient(inputs: Inputs, kernel: Kernel, cotangent: Outputs, window: Window) -> Kernel:
    """Returns Σ_i x[i + k·rate]·ȳ[i] for every tap k: the cotangent of the kernel at stride 1.

    Pixels of a row meet the taps of a kernel's row in one product: copies of the cotangent, each
    shifted by a tap's distance, are concatenated.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, C, D], of which only shape and dtype count.
      cotangent: cotangent of the outputs, [N, H', W', D].
      window: see `Window`.

    Returns:
      [k, k, C, D] in the dtype of the kernel; sums are in float32 or wider.
    """
    size, channels, features = kernel.shape[0], *kernel.shape[2:]
    batch, height, width = cotangent.shape[0], cotangent.shape[1], inputs.shape[2]
    bands = -(-height * width // PIXELS_AT_A_TIME)
    rows = -(-height // bands)
    bands = -(-height // rows)
    beyond = bands * rows - height
    (top, bottom), (left, _) = window.padding
    down, across = window.rates
    inputs = pad(inputs, ((top, bottom + beyond), (0, 0)))
    cotangent = pad(cotangent, ((0, beyond), (0, 0)))
    reach = rows + (size - 1) * down
    precision = jnp.promote_types(jnp.float32, inputs.dtype)

    def add_band(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        corner = (index // bands, index % bands * rows, 0, 0)
        pixels = lax.dynamic_slice(inputs, corner, (1, reach, width, channels)).astype(precision)
        band = lax.dynamic_slice(cotangent, corner, (1, rows, *cotangent.shape[2:]))
        copies = [place(band, (0, tap * across - left), (rows, width)) for tap in range(size)]
        joined = jnp.concatenate(copies, axis=-1).astype(precision)
        return [
            total
            + _outer_products(
                pixels[:, row * down : row * down + rows], joined, precision=lax.Precision.HIGHEST
            )
            for row, total in enumerate(sums)
        ], None

    zeros = [jnp.zeros((channels, size * features), precision)] * size
    sums, _ = lax.scan(add_band, zeros, jnp.arange(batch * bands))
    gradient = jnp.stack(sums).reshape(size, channels, size, features)
    return gradient.transpose(0, 2, 1, 3).astype(kernel.dtype)


def products_over_maps(
    inputs: Inputs, kernel: Kernel, cotangent: Outputs, window: Window
) -> Kernel:
    """Returns the result of `kernel_gradient`, by a product over whole maps per row of taps.

    Copies of the map with fewer channels, each shifted by a tap's distance, are concatenated; the
    other map is read as it is.
    """
    size = window.size
    narrow, wide = inputs, cotangent
    # An output meets the pixel at a tap's distance after it; a pixel meets the output at that
    # distance before it.
    direction = -1
    if cotangent.shape[-1] <= inputs.shape[-1]:
        narrow, wide, direction = cotangent, inputs, 1
    precision = jnp.promote_types(jnp.float32, wide.dtype)
    rows = []
    for row in range(size):
        copies = []
        for column in range(size):
            start = [
                direction * (tap * rate - before)
                for tap, rate, (before, _) in zip(
                    (row, column), window.rates, window.padding, strict=True
                )
            ]
            copies.append(place(narrow, start, wide.shape[1:3]))
        joined = jnp.concatenate(copies, axis=-1)
        rows.append(_outer_products(wide, joined, preferred_element_type=precision))
    gradient = jnp.stack(rows).reshape(size, wide.shape[-1], size, narrow.shape[-1])
    order = (0, 2, 1, 3) if direction > 0 else (0, 2, 3, 1)
    return gradient.transpose(order).astype(kernel.dtype)


def _outer_products(
    left: Float[Array, "N H W C"], right: Float[Array, "N H W D"], **settings: Any
) -> Float[Array, "C D"]:
    """Returns the sum of outer products over [N, H, W], [C, D]; settings: of `dot_general`."""
    over = (((0, 1, 2), (0, 1, 2)), ((), ()))
    return lax.dot_general(left, right, over, **settings)
