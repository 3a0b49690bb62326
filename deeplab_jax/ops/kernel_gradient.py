"""Gradients of convolution kernels, computed as matrix products.

XLA computes the gradient of a kernel as a convolution whose window is the whole feature map.

* On CPUs, this convolution reaches 35 to 45 % of the throughput of matrix products.
  `kernel_gradient`, whose blocks fit into the cache, reaches 60 to 80 %: it takes 15 to 66 ms
  instead of 21 to 138 ms. CPUs use it at stride 1 if one device has the whole batch, unless
  valid_region.py computes the convolution.
* On GPUs, this convolution reaches 70 to 175 TFLOP/s at atrous rates above 1, and matrix products
  reach 690 TFLOP/s. GPUs use `products_over_maps` at these rates and stride 1.

docs/benchmarks.md has measurements of `kernel_gradient`. test_kernel_gradient.py compares both
functions with XLA.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.xla_convolution import Inputs, Kernel, Outputs, Window, pad, place

# Approximate number of pixels per matrix product: with more, the operands do not fit into the
# cache; with fewer, there are more calls.
PIXELS_AT_A_TIME = 1024


def kernel_gradient(inputs: Inputs, kernel: Kernel, cotangent: Outputs, window: Window) -> Kernel:
    """Computes the gradient of a kernel, one band of pixel rows at a time.

    The gradient of tap t is Σ_i x[i + t·rate]·ȳ[i]ᵀ, where x is the padded input and ȳ is the
    cotangent of the outputs.

    In each band, one matrix product per row of taps computes the gradients of all taps in the row.
    The left operand is the input. The right operand is a concatenation of copies of the cotangent,
    one per tap, each shifted by the column distance of its tap. The results of all bands are added.

    Args:
      inputs: input before padding, [N, H, W, C].
      kernel: [k, k, C, D], used only for its shape and dtype.
      cotangent: cotangent ȳ of the outputs, [N, P, Q, D].
      window: kernel size, rates and padding of the convolution; its stride must be 1.

    Returns:
      [k, k, C, D] in the dtype of the kernel; sums are computed in at least float32.
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
    """Computes the gradient of a kernel with one matrix product per row of taps.

    Arguments and result are those of `kernel_gradient`.

    One operand is the map with more channels, either the inputs or the cotangent. The other operand
    is a concatenation of copies of the map with fewer channels, one copy per tap, each shifted by
    the distance of its tap.
    """
    size = window.size
    narrow, wide = inputs, cotangent
    # The tap at distance d multiplies the pixel at i + d into the output at i: copies of the inputs
    # are shifted by −d, copies of the cotangent by +d.
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
    """Returns Σ left·rightᵀ over N, H and W; `settings` are arguments of `lax.dot_general`."""
    over = (((0, 1, 2), (0, 1, 2)), ((), ()))
    return lax.dot_general(left, right, over, **settings)
