"""Dense (not depthwise) convolution, optionally atrous."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import batch_is_sharded, dispatch
from deeplab_jax.ops.joined_maps import JoinedMaps, as_array, convolution_of_joined
from deeplab_jax.ops.kernel_gradient import kernel_gradient, products_over_maps
from deeplab_jax.ops.sharded_rows import (
    HaloMaps,
    convolution_on_devices,
    with_scattered_gradient,
)
from deeplab_jax.ops.valid_region import LARGEST_FRACTION, sum_over_taps, valid_fraction
from deeplab_jax.ops.xla_convolution import (
    GroupedKernel,
    Inputs,
    Kernel,
    Outputs,
    Padding,
    Rate,
    Window,
    xla_convolution,
)

# Computes a gradient from (inputs, kernel, cotangent of the outputs, window).
Gradient = Callable[[jax.Array, jax.Array, jax.Array, Window], jax.Array]


def convolution(
    inputs: Float[Array, "N H W C"] | JoinedMaps | HaloMaps,
    kernel: Float[Array, "k k I D"],
    *,
    stride: int = 1,
    rate: Rate = 1,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "N P Q D"]:
    """Computes the atrous convolution, in which the kernel taps are `rate` pixels apart.

    y[i] = Σ_k x[i·stride + k·rate]·w[k] (DeepLab v2, eq. 1). As in most deep-learning libraries,
    this is a cross-correlation. The rate dilates the kernel; it does not subsample the input.

    Args:
      inputs: [N, H, W, C], an array, `JoinedMaps` or `HaloMaps`.
      kernel: [k, k, C / groups, D].
      stride: distance between neighboring outputs, in input pixels.
      rate: atrous rate, the distance between neighboring taps in input pixels; may be a pair (along
        H, along W).
      padding: numbers of zeros around the map: ((top, bottom), (left, right)).
      groups: number of channel groups; each group of output channels is computed from one group of
        input channels.

    Returns:
      [N, P, Q, D] in the dtype of the inputs.
    """
    window = Window.of(kernel, stride, rate, padding)
    if isinstance(inputs, JoinedMaps) and groups == 1:
        convolve = partial(convolution, stride=stride, rate=rate, padding=padding)
        return convolution_of_joined(inputs, kernel, convolve, window)
    collected = inputs.collected if isinstance(inputs, HaloMaps) else None
    convolve = partial(_convolution, window=window, groups=groups, collected=collected)
    return with_scattered_gradient(convolve, as_array(inputs), kernel, window)


def _convolution(
    inputs: Inputs, kernel: GroupedKernel, window: Window, groups: int, collected: jax.Array | None
) -> Outputs:
    """Computes `convolution` with the implementation for the platform and the sharding.

    Args:
      inputs, kernel, groups: see `convolution`.
      window: kernel size, rates, padding and stride of the convolution.
      collected: `HaloMaps.collected` if `convolution` was called with `HaloMaps`, otherwise None.
    """
    reference = partial(convolution_on_devices, window=window, groups=groups, collected=collected)
    if groups > 1:
        return reference(inputs, kernel)
    stride, padding = window.stride, window.padding
    if window.size == 1 and not any(map(any, padding)):
        return dispatch(reference, partial(_pointwise, stride=stride), inputs, kernel)
    # The CPU and GPU implementations need a known H and W; in an export they may be symbolic.
    known = all(isinstance(side, int) for side in inputs.shape[1:3])
    if not known or stride > 1 or window.size == 1:
        return reference(inputs, kernel)
    is_atrous = max(window.rates) > 1
    gpu = partial(_with_gradients, _transposed, products_over_maps, window) if is_atrous else None
    cpu = reference
    if is_atrous and valid_fraction(inputs.shape[1:3], window) <= LARGEST_FRACTION:
        cpu = partial(sum_over_taps, window=window)
    # The kernel gradient loops over the images: their number must be known, and all of them must be
    # on one device.
    elif isinstance(inputs.shape[0], int) and not batch_is_sharded():
        cpu = partial(_with_gradients, _mirrored, kernel_gradient, window)
    return dispatch(reference, cpu, inputs, kernel, gpu=gpu)


def _pointwise(
    inputs: Float[Array, "N H W C"], kernel: Float[Array, "1 1 C D"], stride: int
) -> Float[Array, "N P Q D"]:
    """Computes a 1×1 convolution without padding, at any stride, as a matrix product.

    This function is used on CPUs, where it is faster than XLA's convolution. For the two layers in
    docs/benchmarks.md, the outputs and both gradients take 2.9 ms instead of 13.7 ms, and 7.3 ms
    instead of 82.2 ms. test_convolution.py compares the results of both implementations.
    """
    inputs = inputs[:, ::stride, ::stride]
    flat = inputs.reshape(-1, inputs.shape[-1])
    return jnp.dot(flat, kernel[0, 0]).reshape(*inputs.shape[:-1], kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _with_gradients(
    of_inputs: Gradient, of_kernel: Gradient, window: Window, inputs: Inputs, kernel: Kernel
) -> Outputs:
    """Computes a convolution of stride 1 with XLA, and its gradients with the given functions.

    Args:
      of_inputs: function that computes the gradient of the inputs.
      of_kernel: function that computes the gradient of the kernel.
      window: kernel size, rates and padding of the convolution; its stride must be 1.
      inputs: [N, H, W, C].
      kernel: [k, k, C, D].
    """
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
    """Computes the gradient of the inputs: the cotangent convolved with the mirrored kernel."""
    edges = window.transposed_padding(inputs.shape[1:3], cotangent.shape[1:3])
    # Without the barrier, XLA would merge the mirroring into the convolution, and the CPU compiler
    # has only a slow loop for such a convolution.
    mirrored = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    return xla_convolution(cotangent, mirrored, window._replace(padding=edges))


def _transposed(inputs: Inputs, kernel: Kernel, cotangent: Outputs, window: Window) -> Inputs:
    """Computes the gradient of the inputs as JAX does, by transposing the convolution."""
    convolve = partial(xla_convolution, kernel=kernel, window=window)
    return jax.linear_transpose(convolve, inputs)(cotangent)[0]
