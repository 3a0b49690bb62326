"""Depthwise convolution: one k×k filter a channel.

Condition of the sum of shifted products: all on CPUs, where XLA's convolution is 25 to 50 times
slower; on GPUs where taps lie apart, 2 to 4 times. Gain of the kernel gradient in bands of rows,
on CPUs where one device has the whole batch: 4.3 to 10.4 ms where nine reductions take 23.9 to 76.1
(docs/benchmarks.md). Reference test: test_depthwise.py.
"""

import functools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import ON_GPUS, batch_is_sharded, chosen, dispatch, traced_once
from deeplab_jax.ops.kernel_gradient import convolution_over_subgrids
from deeplab_jax.ops.xla_convolution import (
    Padding,
    Rate,
    rate_by_axis,
    transposed_padding,
    xla_convolution,
)

Rates = tuple[int, int]
KernelGradient = Callable[..., jax.Array]

# Numbers in one of the nine running sums of the kernel gradient: 128 KiB of float32.
CACHED_SUM = 2**15


@traced_once
def depthwise_convolution(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k 1 C"],
    *,
    stride: int = 1,
    rate: Rate = 1,
    padding: Padding,
) -> Float[Array, "N P Q C"]:
    """Returns each channel convolved with its own kernel, taps `rate` pixels apart.

    Args:
      inputs: [N, H, W, C].
      kernel: [k, k, 1, C].
      stride: distance in pixels between outputs.
      rate: atrous rate, the distance in pixels between taps; a pair for rows and columns.
      padding: zeros before and after H and W.

    Returns:
      [N, H', W', C] in the dtype of the inputs.
    """
    rates = rate_by_axis(rate)
    reference = partial(_xla, stride, rates, padding)
    gradient = _gradient_at_once if batch_is_sharded() else _gradient_in_bands
    cpu = partial(_shifted, gradient, stride, rates, padding)
    name = chosen(ON_GPUS["depthwise"], rates)
    # Subgrids are those of stride 1.
    own = CANDIDATES["shifted" if stride > 1 and name == "subgrids" else name]
    gpu = None if name == "xla" else partial(own, stride, rates, padding)
    return dispatch(reference, cpu, inputs, kernel, gpu=gpu)


def _pad(inputs: Float[Array, "N _ _ C"], padding: Padding) -> Float[Array, "N _ _ C"]:
    (top, bottom), (left, right) = padding
    zero = jnp.zeros((), inputs.dtype)
    return lax.pad(inputs, zero, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))


def _output_size(length: int, kernel_size: int, stride: int, rate: int) -> int:
    return (length - (kernel_size - 1) * rate - 1) // stride + 1


def _taps(
    padded: jax.Array, kernel_size: int, stride: int, rates: Rates
) -> Iterator[tuple[int, int, jax.Array]]:
    """Yields (row, column, the pixels which that tap of the kernel meets)."""
    height, width = (
        _output_size(length, kernel_size, stride, rate)
        for length, rate in zip(padded.shape[1:3], rates, strict=True)
    )
    for row in range(kernel_size):
        for column in range(kernel_size):
            top, left = row * rates[0], column * rates[1]
            rows = slice(top, top + (height - 1) * stride + 1, stride)
            columns = slice(left, left + (width - 1) * stride + 1, stride)
            yield row, column, padded[:, rows, columns]


def _sum_of_shifts(
    padded: Float[Array, "N H W C"], kernel: Float[Array, "k k 1 C"], stride: int, rates: Rates
) -> Float[Array, "N P Q C"]:
    # Sums of bfloat16 would be rounded at each tap.
    precision = jnp.promote_types(jnp.float32, padded.dtype)
    kernel = kernel.astype(precision)
    taps = _taps(padded, kernel.shape[0], stride, rates)
    products = (pixels.astype(precision) * kernel[row, column, 0] for row, column, pixels in taps)
    return functools.reduce(jnp.add, products).astype(padded.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _shifted(
    kernel_gradient: KernelGradient,
    stride: int,
    rates: Rates,
    padding: Padding,
    inputs: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    return _sum_of_shifts(_pad(inputs, padding), kernel, stride, rates)


def _shifted_forward(
    kernel_gradient: KernelGradient,
    stride: int,
    rates: Rates,
    padding: Padding,
    inputs: jax.Array,
    kernel: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    outputs = _shifted(kernel_gradient, stride, rates, padding, inputs, kernel)
    return outputs, (inputs, kernel)


def _shifted_backward(
    kernel_gradient: KernelGradient,
    stride: int,
    rates: Rates,
    padding: Padding,
    residuals: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    inputs, kernel = residuals
    of_kernel = kernel_gradient(_pad(inputs, padding), cotangent, kernel, stride, rates)
    return _input_gradient(inputs, cotangent, kernel, stride, rates, padding), of_kernel


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _input_gradient(
    inputs: Float[Array, "N H W C"],
    cotangent: Float[Array, "N P Q C"],
    kernel: Float[Array, "k k 1 C"],
    stride: int,
    rates: Rates,
    padding: Padding,
) -> Float[Array, "N H W C"]:
    """The same operation with the kernel mirrored, on the cotangent spread out by the stride."""
    sizes = inputs.shape[1:3], cotangent.shape[1:3]
    edges = transposed_padding(kernel.shape[0], rates, padding, *sizes, stride)
    spread_edges = [(before, after, stride - 1) for before, after in edges]
    zero = jnp.zeros((), cotangent.dtype)
    spread = lax.pad(cotangent, zero, ((0, 0, 0), *spread_edges, (0, 0, 0)))
    return _sum_of_shifts(spread, kernel[::-1, ::-1], 1, rates)


def _gradient_at_once(
    padded: Float[Array, "N H W C"],
    cotangent: Float[Array, "N P Q C"],
    kernel: Float[Array, "k k 1 C"],
    stride: int,
    rates: Rates,
) -> Float[Array, "k k 1 C"]:
    """Sums pixel × cotangent over whole maps, for each tap."""
    precision = jnp.promote_types(jnp.float32, cotangent.dtype)
    cotangent = cotangent.astype(precision)
    taps = _taps(padded, kernel.shape[0], stride, rates)
    sums = [(pixels.astype(precision) * cotangent).sum((0, 1, 2)) for _, _, pixels in taps]
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def _gradient_in_bands(
    padded: Float[Array, "N H W C"],
    cotangent: Float[Array, "N P Q C"],
    kernel: Float[Array, "k k 1 C"],
    stride: int,
    rates: Rates,
) -> Float[Array, "k k 1 C"]:
    """Sums pixel × cotangent over the map, some rows of outputs at a time.

    Each step adds whole rows [R, W', C], which the compiler vectorises and keeps in cache; one big
    reduction over N, H, W of nine shifted products takes up to eight times as long.
    """
    size = kernel.shape[0]
    batch, height, width, channels = cotangent.shape
    rows = _rows_at_a_time(height, width * channels)
    bands = height // rows
    reach = (rows - 1) * stride + (size - 1) * rates[0] + 1
    precision = jnp.promote_types(jnp.float32, cotangent.dtype)

    def add_band(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        image, row = index // bands, index % bands * rows
        corner = (image, row * stride, 0, 0)
        pixels = lax.dynamic_slice(padded, corner, (1, reach, *padded.shape[2:]))
        gradient = lax.dynamic_slice(cotangent, (image, row, 0, 0), (1, rows, width, channels))
        taps = _taps(pixels.astype(precision), size, stride, rates)
        return [
            total + tap[0] * gradient[0].astype(precision)
            for total, (_, _, tap) in zip(sums, taps, strict=True)
        ], None

    zeros = [jnp.zeros((rows, width, channels), precision)] * size**2
    sums, _ = lax.scan(add_band, zeros, jnp.arange(batch * bands))
    gradient = jnp.stack([total.sum((0, 1)) for total in sums])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)


def _rows_at_a_time(height: int, row_size: int) -> int:
    """The most rows that divide the height and whose sums stay in cache."""
    fitting = [n for n in range(1, height + 1) if height % n == 0 and n * row_size <= CACHED_SUM]
    return max(fitting, default=1)


def _xla(
    stride: int,
    rates: Rates,
    padding: Padding,
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k 1 C"],
) -> Float[Array, "N P Q C"]:
    groups = inputs.shape[-1]
    return xla_convolution(
        inputs, kernel, stride=stride, rates=rates, padding=padding, groups=groups
    )


def _over_subgrids(
    stride: int,
    rates: Rates,
    padding: Padding,
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k 1 C"],
) -> Float[Array, "N P Q C"]:
    if stride > 1:
        raise ValueError(f"subgrids are those of stride 1, not {stride}")
    return convolution_over_subgrids(inputs, kernel, rates, padding, inputs.shape[-1])


# What the row `depthwise` of `dispatch.ON_GPUS` chooses from.
CANDIDATES: dict[str, Callable[..., jax.Array]] = {
    "xla": _xla,
    "shifted": partial(_shifted, _gradient_at_once),
    "subgrids": _over_subgrids,
}
