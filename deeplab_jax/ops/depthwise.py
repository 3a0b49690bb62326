"""Depthwise convolution: one k×k filter per channel.

On CPUs, and on GPUs at atrous rates above 1, this convolution is computed as a sum of shifted
products. For the layers measured in docs/benchmarks.md, XLA's convolution takes 27 to 39 times as
long on CPUs, and 2 to 4 times as long on GPUs. On CPUs, unless the batch is sharded over devices,
the kernel gradient is summed over bands of rows. For the measured layer, this takes 10.4 ms, and
one sum per tap over the whole batch takes 76.1 ms. test_depthwise.py compares all implementations
with XLA's.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import batch_is_sharded, dispatch
from deeplab_jax.ops.sharded_rows import (
    HaloMaps,
    convolution_on_devices,
    with_scattered_gradient,
)
from deeplab_jax.ops.xla_convolution import (
    NO_PADDING,
    ChannelKernel,
    Inputs,
    Padding,
    Rate,
    Window,
    pad,
)

KernelGradient = Callable[..., jax.Array]

# Maximum number of values in each running sum of `gradient_in_bands`: 128 KiB of float32.
CACHED_SUM = 2**15


def depthwise_convolution(
    inputs: Float[Array, "N H W C"] | HaloMaps,
    kernel: Float[Array, "k k 1 C"],
    *,
    stride: int = 1,
    rate: Rate = 1,
    padding: Padding,
) -> Float[Array, "N P Q C"]:
    """Convolves each channel with its own kernel, whose taps are `rate` pixels apart.

    Args:
      inputs: [N, H, W, C], an array or `HaloMaps`.
      kernel: [k, k, 1, C].
      stride: distance between neighboring outputs, in input pixels.
      rate: atrous rate, the distance between neighboring taps in input pixels; may be a pair (along
        H, along W).
      padding: numbers of zeros around the map: ((top, bottom), (left, right)).

    Returns:
      [N, P, Q, C] in the dtype of the inputs.
    """
    window = Window.of(kernel, stride, rate, padding)
    collected = inputs.collected if isinstance(inputs, HaloMaps) else None
    convolve = partial(_depthwise, window=window, collected=collected)
    maps = inputs.maps if isinstance(inputs, HaloMaps) else inputs
    return with_scattered_gradient(convolve, maps, kernel, window)


def _depthwise(
    inputs: Inputs, kernel: ChannelKernel, window: Window, collected: jax.Array | None
) -> Float[Array, "N P Q C"]:
    """Computes `depthwise_convolution` with the implementation for the platform and the sharding.

    Args:
      inputs, kernel: see `depthwise_convolution`.
      window: kernel size, rates, padding and stride of the convolution.
      collected: rows of the inputs with copies of neighboring rows, see `HaloMaps.collected`. None
        if `depthwise_convolution` was called with an array.
    """
    reference = partial(
        convolution_on_devices, window=window, groups=inputs.shape[-1], collected=collected
    )
    gradient = gradient_at_once if batch_is_sharded() else gradient_in_bands
    cpu = partial(shifted_products, gradient, window)
    gpu = partial(shifted_products, gradient_at_once, window) if max(window.rates) > 1 else None
    return dispatch(reference, cpu, inputs, kernel, gpu=gpu)


def _taps(padded: jax.Array, window: Window) -> Iterator[tuple[int, int, jax.Array]]:
    """Yields the position of every tap in the kernel, and the pixels that the tap multiplies.

    Args:
      padded: padded inputs, [N, H, W, C].
      window: kernel size, rates, padding and stride of the convolution.

    Yields:
      (row, column, pixels): row and column of the tap, and an array [N, P, Q, C] with one pixel for
      each of the P × Q outputs.
    """
    stride = window.stride
    height, width = window._replace(padding=NO_PADDING).outputs(padded.shape[1:3])
    for row in range(window.size):
        for column in range(window.size):
            top, left = row * window.rates[0], column * window.rates[1]
            rows = slice(top, top + (height - 1) * stride + 1, stride)
            columns = slice(left, left + (width - 1) * stride + 1, stride)
            yield row, column, padded[:, rows, columns]


def _sum_of_shifts(
    padded: Float[Array, "N H W C"], kernel: ChannelKernel, window: Window
) -> Float[Array, "N P Q C"]:
    # In bfloat16, the sum would be rounded at every tap.
    precision = jnp.promote_types(jnp.float32, padded.dtype)
    kernel = kernel.astype(precision)
    total = sum(
        pixels.astype(precision) * kernel[row, column, 0]
        for row, column, pixels in _taps(padded, window)
    )
    return jnp.asarray(total, padded.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def shifted_products(
    kernel_gradient: KernelGradient, window: Window, inputs: Inputs, kernel: ChannelKernel
) -> Float[Array, "N P Q C"]:
    """Computes the convolution as a sum of k·k shifted inputs, each multiplied by one tap.

    Args:
      kernel_gradient: function for the gradient of the kernel, such as `gradient_at_once`.
      window: kernel size, rates, padding and stride of the convolution.
      inputs: [N, H, W, C].
      kernel: [k, k, 1, C].
    """
    return _sum_of_shifts(pad(inputs, window.padding), kernel, window)


def _forward(
    kernel_gradient: KernelGradient, window: Window, inputs: Inputs, kernel: ChannelKernel
) -> tuple[Float[Array, "N P Q C"], Any]:
    return shifted_products(kernel_gradient, window, inputs, kernel), (inputs, kernel)


def _backward(
    kernel_gradient: KernelGradient,
    window: Window,
    residuals: Any,
    cotangent: Float[Array, "N P Q C"],
) -> tuple[Inputs, ChannelKernel]:
    inputs, kernel = residuals
    of_kernel = kernel_gradient(pad(inputs, window.padding), kernel, cotangent, window)
    # The gradient of the inputs is the same operation with the mirrored kernel, on a cotangent with
    # stride − 1 zeros between its pixels.
    edges = window.transposed_padding(inputs.shape[1:3], cotangent.shape[1:3])
    spread = pad(cotangent, edges, between=window.stride - 1)
    return _sum_of_shifts(spread, kernel[::-1, ::-1], window._replace(stride=1)), of_kernel


shifted_products.defvjp(_forward, _backward)


def gradient_at_once(
    padded: Inputs, kernel: ChannelKernel, cotangent: Float[Array, "N P Q C"], window: Window
) -> ChannelKernel:
    """Computes the kernel gradient, with one sum over the whole batch for each tap.

    The gradient of a tap is the sum over N, P and Q of cotangent · padded pixel under the tap.

    Args:
      padded: padded inputs, [N, H, W, C].
      kernel: [k, k, 1, C], used for its shape and dtype.
      cotangent: cotangent of the outputs, [N, P, Q, C].
      window: kernel size, rates, padding and stride of the convolution.
    """
    precision = jnp.promote_types(jnp.float32, cotangent.dtype)
    cotangent = cotangent.astype(precision)
    taps = _taps(padded, window)
    sums = [(pixels.astype(precision) * cotangent).sum((0, 1, 2)) for _, _, pixels in taps]
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def gradient_in_bands(
    padded: Inputs, kernel: ChannelKernel, cotangent: Float[Array, "N P Q C"], window: Window
) -> ChannelKernel:
    """Computes the kernel gradient one band of output rows at a time.

    Arguments and result are those of `gradient_at_once`.

    Each tap has a running sum [R, Q, C], where R is the number of output rows in a band. A loop
    over the bands of all images adds the elementwise products of the cotangent and the padded
    pixels under the tap. The compiler vectorizes the additions, and the running sum fits into the
    cache. `gradient_at_once` takes about seven times as long (docs/benchmarks.md).
    """
    batch, height, width, channels = cotangent.shape
    fitting = [
        n for n in range(1, height + 1) if height % n == 0 and n * width * channels <= CACHED_SUM
    ]
    rows = max(fitting, default=1)
    bands = height // rows
    reach = (rows - 1) * window.stride + (window.size - 1) * window.rates[0] + 1
    precision = jnp.promote_types(jnp.float32, cotangent.dtype)

    def add_band(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        image, row = index // bands, index % bands * rows
        corner = (image, row * window.stride, 0, 0)
        pixels = lax.dynamic_slice(padded, corner, (1, reach, *padded.shape[2:]))
        gradient = lax.dynamic_slice(cotangent, (image, row, 0, 0), (1, rows, width, channels))
        return [
            total + tap[0] * gradient[0].astype(precision)
            for total, (_, _, tap) in zip(
                sums, _taps(pixels.astype(precision), window), strict=True
            )
        ], None

    zeros = [jnp.zeros((rows, width, channels), precision)] * window.size**2
    sums, _ = lax.scan(add_band, zeros, jnp.arange(batch * bands))
    gradient = jnp.stack([total.sum((0, 1)) for total in sums])
    return gradient.reshape(kernel.shape).astype(kernel.dtype)
