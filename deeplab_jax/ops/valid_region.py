"""Atrous convolution as a sum of matrix products over taps, without multiplying the padding.

At the rates of ASPP, many taps fall on the padding. For a 3×3 kernel at rate r on a map of n × n
pixels, an outer tap falls on a pixel for only n − r of n outputs per axis, so only the fraction
((1 + 2·(n − r)/n) / 3)² of the multiply-adds is needed: 40 % at rate 36 on 65 pixels. XLA's
convolution on CPUs computes all of them.

`sum_over_taps` is used on CPUs at stride 1 and rates above 1, if at most 80 % of the multiply-adds
are needed. For 2048 → 256 channels at 65 × 65 pixels and rates 12, 24 and 36 it takes 254, 191 and
138 ms; XLA's convolution takes 327, 434 and 577 ms (docs/benchmarks.md). test_convolution.py checks
that the results of `sum_over_taps` and of XLA's convolution are equal.
"""

import jax.numpy as jnp

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.xla_convolution import Inputs, Kernel, Outputs, Size, Window, place

Span = tuple[int, int]

# If a larger fraction of the multiply-adds is needed, XLA's convolution is as fast
# (docs/benchmarks.md).
LARGEST_FRACTION = 0.8
# If a larger fraction of the products of a row of taps is needed, one matrix product computes all
# of them, including those that are not needed.
LEAST_FRACTION_OF_ROW = 0.6


def valid_fraction(size: Size, window: Window) -> float:
    """Returns the fraction of multiply-adds in which a tap falls on a pixel, not on the padding.

    Args:
      size: size (H, W) of the inputs.
      window: window of the convolution.
    """
    fraction = 1.0
    for length, rate, outputs, (before, _) in zip(
        size, window.rates, window.outputs(size), window.padding, strict=True
    ):
        spans = [output_span(tap * rate - before, length, outputs) for tap in range(window.size)]
        met = sum(stop - start for start, stop in spans)
        fraction *= met / (window.size * max(outputs, 1))
    return fraction


def output_span(shift: int, length: int, outputs: int) -> Span:
    """Returns the range (start, stop) of the outputs for which one tap falls on a pixel.

    Args:
      shift: index of the pixel that the tap multiplies, minus the index of the output.
      length: number of pixels along the axis.
      outputs: number of outputs along the axis.
    """
    start = min(max(0, -shift), outputs)
    return start, max(start, min(outputs, length - shift))


def sum_over_taps(inputs: Inputs, kernel: Kernel, window: Window) -> Outputs:
    """Computes the convolution at stride 1 as a sum over taps, without multiplying the padding.

    Each row of the kernel needs one contiguous block of input rows. The block is sliced once and
    used for all taps in that row of the kernel. Sums are computed in at least float32, because
    bfloat16 sums would be rounded at every tap.
    """
    height, width = window.outputs(inputs.shape[1:3])
    dtype, precision = inputs.dtype, jnp.promote_types(jnp.float32, inputs.dtype)
    inputs, kernel = inputs.astype(precision), kernel.astype(precision)
    total = jnp.zeros((inputs.shape[0], height, width, kernel.shape[-1]), precision)
    for row in range(window.size):
        shift = row * window.rates[0] - window.padding[0][0]
        top, bottom = output_span(shift, inputs.shape[1], height)
        if top < bottom:
            pixels = inputs[:, top + shift : bottom + shift]
            part = _sum_over_columns(pixels, kernel[row], window, width)
            total += place(part, (top, 0), (height, width))
    return total.astype(dtype)


def _sum_over_columns(
    pixels: Float[Array, "N R W C"], kernel: Float[Array, "k C D"], window: Window, outputs: int
) -> Float[Array, "N R Q D"]:
    """Computes the sum over the taps of one row of the kernel.

    Args:
      pixels: the R rows of pixels that this row of the kernel multiplies, [N, R, W, C].
      kernel: one row of the kernel, [k, C, D].
      window: window of the convolution.
      outputs: number Q of outputs along W.

    Returns:
      [N, R, Q, D].
    """
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
    """Returns the products of all pixels with all taps, as one matrix product: [N, R, W, k, D]."""
    number, channels, features = taps.shape
    beside = taps.transpose(1, 0, 2).reshape(channels, number * features)
    products = jnp.dot(pixels.reshape(-1, channels), beside)
    return products.reshape(*pixels.shape[:3], number, features)
