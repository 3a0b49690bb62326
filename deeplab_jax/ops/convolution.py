"""Dense convolution, atrous or not."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.dispatch import (
    ON_GPUS,
    batch_is_sharded,
    chosen,
    dispatch,
    traced_once,
)
from deeplab_jax.ops.joined_maps import JoinedMaps, convolution_of_joined
from deeplab_jax.ops.kernel_gradient import CANDIDATES, kernel_gradient
from deeplab_jax.ops.valid_region import LARGEST_SHARE, sum_over_taps, valid_share
from deeplab_jax.ops.xla_convolution import (
    Padding,
    Rate,
    rate_by_axis,
    transposed_padding,
    xla_convolution,
)

# (inputs, kernel, cotangent, rates, padding) → the gradient of one of the two operands.
Gradient = Callable[[jax.Array, jax.Array, jax.Array, tuple[int, int], Padding], jax.Array]


@traced_once
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
      padding: zeros before and after H and W.

    Returns:
      [N, H', W', D] in the dtype of the inputs.
    """
    if isinstance(inputs, JoinedMaps):
        if stride > 1:
            return convolution(inputs.array(), kernel, stride=stride, rate=rate, padding=padding)
        convolve = partial(convolution, rate=rate, padding=padding)
        return convolution_of_joined(inputs, kernel, convolve, rate, padding)
    rates = rate_by_axis(rate)
    reference = partial(xla_convolution, stride=stride, rates=rates, padding=padding)
    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return dispatch(reference, lambda x, k: _pointwise(x, k, stride), inputs, kernel)
    # Export may leave sizes open: they are symbols then, and no share can be computed.
    known = all(isinstance(side, int) for side in inputs.shape[1:3])
    if not known or stride > 1 or kernel.shape[0] == 1:
        return reference(inputs, kernel)
    name = chosen(ON_GPUS["kernel_gradient"], rates)
    own = partial(_with_gradients, _transposed, CANDIDATES[name], rates, padding)
    gpu = None if name == "xla" else own
    share = valid_share(inputs.shape[1:3], kernel.shape[0], rates, padding)
    if max(rates) > 1 and share <= LARGEST_SHARE:
        over_taps = partial(sum_over_taps, rates=rates, padding=padding)
        return dispatch(reference, over_taps, inputs, kernel, gpu=gpu)
    # Bands are taken image by image: of a batch that is known, and all here.
    in_bands = isinstance(inputs.shape[0], int) and not batch_is_sharded()
    bands = partial(_with_gradients, _mirrored, kernel_gradient, rates, padding)
    return dispatch(reference, bands if in_bands else reference, inputs, kernel, gpu=gpu)


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


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _with_gradients(
    of_inputs: Gradient,
    of_kernel: Gradient,
    rates: tuple[int, int],
    padding: Padding,
    inputs: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    """XLA's convolution at stride 1, with gradients of our own."""
    return xla_convolution(inputs, kernel, stride=1, rates=rates, padding=padding)


def _forward(
    of_inputs: Gradient,
    of_kernel: Gradient,
    rates: tuple[int, int],
    padding: Padding,
    inputs: jax.Array,
    kernel: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return xla_convolution(inputs, kernel, stride=1, rates=rates, padding=padding), (inputs, kernel)


def _backward(
    of_inputs: Gradient,
    of_kernel: Gradient,
    rates: tuple[int, int],
    padding: Padding,
    residuals: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    operands = (*residuals, cotangent, rates, padding)
    return of_inputs(*operands), of_kernel(*operands)


_with_gradients.defvjp(_forward, _backward)


def _mirrored(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "N H W C"]:
    """The inputs' gradient: the cotangent convolved with the kernel mirrored."""
    sizes = inputs.shape[1:3], cotangent.shape[1:3]
    edges = transposed_padding(kernel.shape[0], rates, padding, *sizes)
    # Kept apart: merged into the convolution it makes one that the CPU compiler runs in a loop.
    mirrored = lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    return xla_convolution(cotangent, mirrored, stride=1, rates=rates, padding=edges)


def _transposed(
    inputs: Float[Array, "N H W C"],
    kernel: Float[Array, "k k C D"],
    cotangent: Float[Array, "N P Q D"],
    rates: tuple[int, int],
    padding: Padding,
) -> Float[Array, "N H W C"]:
    """The inputs' gradient as JAX derives it."""

    def convolve(inputs: jax.Array) -> jax.Array:
        return xla_convolution(inputs, kernel, stride=1, rates=rates, padding=padding)

    return jax.linear_transpose(convolve, inputs)(cotangent)[0]
