"""Atrous convolution as a sum of matrix products, each over the outputs whose tap meets a pixel.

At the rates of ASPP most of a kernel's taps meet the padding: at rate r on n pixels a side the
outer ones meet only n − r, so that ((1 + 2·(n − r)/n) / 3)² of the multiply-adds are needed, 40 %
for rate 36 on 65 pixels. XLA's convolution on CPUs computes them all.

Condition: CPUs, stride 1, atrous, at most LARGEST_FRACTION of the multiply-adds needed. Gain at
65 × 65, 2048 → 256: 254, 191 and 138 ms at rates 12, 24, 36 where the convolution takes 327, 434
and 577 (docs/benchmarks.md). Reference test: test_convolution.py.
"""

import jax.numpy as jnp

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.xla_convolution import Inputs, Kernel, Outputs, Size, Window, place

Span = tuple[int, int]

# Above this fraction of needed multiply-adds the convolution is no slower (docs/benchmarks.md).
LARGEST_FRACTION = 0.8
# A row of taps is one product, with and without pixels, if they meet a larger fraction of them.
LEAST_FRACTION_OF_ROW = 0.6


def valid_fraction(size: Size, window: Window) -> float:
    """Returns the fraction of a convolution's multiply-adds in which a tap meets a pixel."""
    fraction = 1.0
    for length, rate, outputs, (before, _) in zip(
        size, window.rates, window.outputs(size), window.padding, strict=True
    ):
        spans = [output_span(tap * rate - before, length, outputs) for tap in range(window.size)]
        met = sum(stop - start for start, stop in spans)
        fraction *= met / (window.size * max(outputs, 1))
    return fraction


def output_span(shift: int, length: int, outputs: int) -> Span:
    """Returns first and last + 1 of the outputs whose tap, `shift` pixels on, meets a pixel."""
    start = min(max(0, -shift), outputs)
    return start, max(start, min(outputs, length - shift))


def sum_over_taps(inputs: Inputs, kernel: Kernel, window: Window) -> Outputs:
    """Returns the convolution with stride 1; see `ops.convolution`.

    The rows of pixels that a row of taps meets are cut out once; they are contiguous in memory.
    """
    height, width = window.outputs(inputs.shape[1:3])
    total = jnp.zeros((inputs.shape[0], height, width, kernel.shape[-1]), inputs.dtype)
    for row in range(window.size):
        shift = row * window.rates[0] - window.padding[0][0]
        top, bottom = output_span(shift, inputs.shape[1], height)
        if top < bottom:
            pixels = inputs[:, top + shift : bottom + shift]
            part = _sum_over_columns(pixels, kernel[row], window, width)
            total += place(part, (top, 0), (height, width))
    return total


def _sum_over_columns(
    pixels: Float[Array, "N R W C"], kernel: Float[Array, "k C D"], window: Window, outputs: int
) -> Float[Array, "N R Q D"]:
    """Returns the sum over a row of taps; kernel: [k, C, D]."""
    taps = []
    for column in range(window.size):
        shift = column * window.rates[1] - window.padding[1][0]
        start, stop = output_span(shift, pixels.shape[2], outputs)
        if start < stop:
            taps.append((column, shift, start, stop))
    total = jnp.zeros((*pixels.shape[:2], outputs, kernel.shape[-1]), pixels.dtype)
    met = sum(stop - start for *_, start, stop in taps)
    if met > LEAST_FRACTION_OF_ROW * len(taps) * outputs:
        first, last = taps[0][0], taps[-1][0]
        products = _products(pixels, kernel[first : last + 1])
        parts = [
            products[:, :, start + shift : stop + shift, index]
            for index, (_, shift, start, stop) in enumerate(taps)
        ]
    else:
        parts = [
            _products(pixels[:, :, start + shift : stop + shift], kernel[column, None])[..., 0, :]
            for column, shift, start, stop in taps
        ]
    for part, (*_, start, _) in zip(parts, taps, strict=True):
        total += place(part, (0, start), total.shape[1:3])
    return total


def _products(
    pixels: Float[Array, "N R W C"], taps: Float[Array, "k C D"]
) -> Float[Array, "N R W k D"]:
    """Maps [N, R, W, C] to [N, R, W, k, D], by one matrix product with all taps [k, C, D]."""
    number, channels, features = taps.shape
    beside = taps.transpose(1, 0, 2).reshape(channels, number * features)
    products = jnp.dot(pixels.reshape(-1, channels), beside)
    return products.reshape(*pixels.shape[:3], number, features)
