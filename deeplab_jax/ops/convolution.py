"""Dense convolution, atrous or not."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import batch_is_sharded, dispatch
from deeplab_jax.ops.joined_maps import JoinedMaps, convolution_of_joined
from deeplab_jax.ops.kernel_gradient import kernel_gradient, products_over_maps
from deeplab_jax.ops.valid_region import LARGEST_FRACTION, sum_over_taps, valid_fraction
from deeplab_jax.ops.xla_convolution import (
    Inputs,
    Kernel,
    Outputs,
    Padding,
    Rate,
    Window,
    xla_convolution,
)

# Function of inputs, kernel, cotangent of the outputs, and window.
Gradient = Callable[[jax.Array, jax.Array, jax.Array, Window], jax.Array]


def convolution(
    inputs: Float[Array, "N H W C"] | JoinedMaps,
    kernel: Float[Array, "k k C D"],
    *,
    stride: int = 1,
    rate: Rate = 1,
    padding: Padding,
) -> Float[Array, "N P Q D"]:
    """Returns the convolution whose kernel taps lie `rate` pixels apart.

    y[i] = Σ_k x[i·stride + k·rate]·w[k] (DeepLab v2, eq. 1; a correlation, as everywhere in the
    field). The holes are in the kernel; the input keeps all its pixels.

    Args:
      inputs: [N, H, W, C], as an array or as maps that are joined to one.
      kernel: [k, k, C, D].
      stride: distance in pixels between outputs.
      rate: atrous rate, the distance in pixels between taps; a pair for rows and columns.
      padding: number of zeros before and after H and W.

    Returns:
      [N, H', W', D] in the dtype of the inputs.
    """
    window = Window.of(kernel, stride, rate, padding)
    if isinstance(inputs, JoinedMaps):
        convolve = partial(convolution, stride=stride, rate=rate, padding=padding)
        return convolution_of_joined(inputs, kernel, convolve, window)
    reference = partial(xla_convolution, window=window)
    if window.size == 1 and not any(map(any, padding)):
        return dispatch(reference, partial(_pointwise, stride=stride), inputs, kernel)
    # The fraction below needs known sizes; those that export leaves open are symbols.
    known = all(isinstance(side, int) for side in inputs.shape[1:3])
    if not known or stride > 1 or window.size == 1:
        return reference(inputs, kernel)
    is_atrous = max(window.rates) > 1
    gpu = partial(_with_gradients, _transposed, products_over_maps, window) if is_atrous else None
    cpu = reference
    if is_atrous and valid_fraction(inputs.shape[1:3], window) <= LARGEST_FRACTION:
        cpu = partial(sum_over_taps, window=window)
    # Bands are cut image by image: the batch must have a known size and be on one device.
    elif isinstance(inputs.shape[0], int) and not batch_is_sharded():
        cpu = partial(_with_gradients, _mirrored, kernel_gradient, window)
    return dispatch(reference, cpu, inputs, kernel, gpu=gpu)


def _pointwise(
    inputs: Float[Array, "N H W C"], kernel: Float[Array, "1 1 C D"], stride: int
) -> Float[Array, "N P Q D"]:
    """Returns a 1×1 convolution as a matrix product.

    Condition: CPUs, no padding. Gain: 2.9 to 7.9 ms for outputs and both gradients where XLA's
    convolution takes 13.7 to 82.2 (docs/benchmarks.md). Reference test: test_convolution.py.
    """
    inputs = inputs[:, ::stride, ::stride]
    flat = inputs.reshape(-1, inputs.shape[-1])
    return jnp.dot(flat, kernel[0, 0]).reshape(*inputs.shape[:-1], kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _with_gradients(
    of_inputs: Gradient, of_kernel: Gradient, window: Window, inputs: Inputs, kernel: Kernel
) -> Outputs:
    """Returns XLA's convolution at stride 1, with other gradients than XLA's."""
    return xla_convolution(inputs, kernel, window)


def _forward(
    of_inputs: Gradient, of_kernel: Gradient, window: Window, inputs: Inputs, kernel: Kernel
) -> tuple[Outputs, tuple[Inputs, Kernel]]:
    return xla_convolution(inputs, kernel, window), (inputs, kernel)


def _backward(
    of_inputs: Gradient,
    of_kernel: Gradient,
    window: Window,
    operands: tuple[Inputs, Kernel],
    cotangent: Outputs,
) -> tuple[Inputs, Kernel]:
    return of_inputs(*operands, cotangent, window), of_kernel(*operands, cotangent, window)


_with_gradients.defvjp(_forward, _backward)


def _mirrored(inputs: Inputs, kernel: Kernel, cotangent: Outputs, window: Window) -> Inputs:
    """Returns the inputs' gradient: the cotangent convolved with the kernel mirrored."""
    edges = window.transposed_padding(inputs.shape[1:3], cotangent.shape[1:3])
    # The barrier keeps the mirroring out of the convolution: merged into it, it makes one that the
    # CPU compiler runs in a loop.
    mirrored = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    return xla_convolution(cotangent, mirrored, window._replace(padding=edges))


def _transposed(inputs: Inputs, kernel: Kernel, cotangent: Outputs, window: Window) -> Inputs:
    """Returns the inputs' gradient as JAX derives it."""
    convolve = partial(xla_convolution, kernel=kernel, window=window)
    return jax.linear_transpose(convolve, inputs)(cotangent)[0]
