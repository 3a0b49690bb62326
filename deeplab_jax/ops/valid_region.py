"""Atrous convolution as a sum of matrix products, one a tap, each where its tap meets pixels.

At the rates of ASPP most of a kernel's taps meet the padding: at rate r on n pixels a side the
outer ones meet only n − r, so that ((1 + 2·(n − r)/n) / 3)² of the multiply-adds are needed, 40 %
for rate 36 on 65 pixels. XLA's convolution on CPUs computes them all.
"""

import jax
import jax.numpy as jnp

from deeplab_jax.ops.padding import Padding

Span = tuple[int, int]

# Above this share of needed multiply-adds the convolution is no slower (docs/benchmarks.md).
LARGEST_SHARE = 0.8


def valid_share(size: tuple[int, int], kernel_size: int, rates: Span, padding: Padding) -> float:
    """Returns the share of a convolution's multiply-adds in which a tap meets a pixel."""
    share = 1.0
    for length, rate, (before, after) in zip(size, rates, padding, strict=True):
        outputs = length + before + after - (kernel_size - 1) * rate
        met = sum(
            stop - start
            for start, stop in (
                output_span(tap * rate - before, length, outputs) for tap in range(kernel_size)
            )
        )
        share *= met / (kernel_size * max(outputs, 1))
    return share


def output_span(shift: int, length: int, outputs: int) -> Span:
    """Returns from where to where outputs see a pixel through a tap `shift` pixels further on."""
    start = min(max(0, -shift), outputs)
    return start, max(start, min(outputs, length - shift))


def sum_over_taps(inputs: jax.Array, kernel: jax.Array, rates: Span, padding: Padding) -> jax.Array:
    """Returns the convolution with stride 1; see `ops.convolution`.

    The pixels that a column of taps meets are cut out once, their rows are contiguous: cutting out
    each tap's would move as many bytes as its matrix product reads.
    """
    size = kernel.shape[0]
    length = [
        side + before + after - (size - 1) * rate
        for side, rate, (before, after) in zip(inputs.shape[1:3], rates, padding, strict=True)
    ]
    total = jnp.zeros((inputs.shape[0], *length, kernel.shape[-1]), inputs.dtype)
    for column in range(size):
        shift = column * rates[1] - padding[1][0]
        left, right = output_span(shift, inputs.shape[2], length[1])
        if left < right:
            pixels = inputs[:, :, left + shift : right + shift]
            part = _sum_over_rows(pixels, kernel[:, column], rates[0], padding[0][0], length[0])
            total += _placed(part, 2, left, length[1])
    return total


def _sum_over_rows(
    pixels: jax.Array, kernel: jax.Array, rate: int, before: int, outputs: int
) -> jax.Array:
    """Returns the sum over a column of taps; kernel: [k, C, D]."""
    batch, height, width, channels = pixels.shape
    total = jnp.zeros((batch, outputs, width, kernel.shape[-1]), pixels.dtype)
    for row, tap in enumerate(kernel):
        shift = row * rate - before
        top, bottom = output_span(shift, height, outputs)
        if top < bottom:
            met = pixels[:, top + shift : bottom + shift].reshape(-1, channels)
            part = jnp.dot(met, tap).reshape(batch, bottom - top, width, -1)
            total += _placed(part, 1, top, outputs)
    return total


def _placed(part: jax.Array, axis: int, start: int, length: int) -> jax.Array:
    """Returns the part with zeros before and after it along an axis."""
    edges = [(0, 0)] * part.ndim
    edges[axis] = (start, length - start - part.shape[axis])
    return jnp.pad(part, edges)
