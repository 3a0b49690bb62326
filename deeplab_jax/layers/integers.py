"""Convolutions in 8-bit integers, for quantized networks.

Kernels are int8 with one scale per output channel. Inputs are int8 with one scale and one zero
point per feature map (arXiv 1712.05877; per-channel scales: arXiv 1806.08342, section 3). Batch
normalization is folded into scale and bias. All other operations compute in floating point.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.lazy import import_extra

# Axis D of kernels [k, k, C, D].
OUTPUT_CHANNELS = 3


def convolve_in_integers(layer: nn.Module, inputs: jax.Array) -> jax.Array:
    """Computes a convolution layer in 8-bit integers, up to the activation, which is not applied.

    Args:
      layer: `ConvNorm` or `Convolution` whose compact method calls this function.
      inputs: floating point [N, H, W, C].

    Returns:
      float32 [N, P, Q, D], where (P, Q) is the output size of the convolution.
    """
    inputs = ops.as_array(inputs)
    depthwise, channels = getattr(layer, "depthwise", False), inputs.shape[-1]
    features = channels if depthwise else layer.form.output_channels(layer)
    groups = channels if depthwise else getattr(layer, "groups", 1)
    shape = (layer.kernel_size, layer.kernel_size, channels // groups, features)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    kernel = layer.param("kernel", zeros, shape, jnp.int8)
    kernel_scale = layer.param("kernel_scale", ones, (features,))
    bias = layer.param("bias", zeros, (features,))
    input_scale = layer.param("input_scale", ones, ())
    zero_point = layer.param("input_zero_point", zeros, (), jnp.int8)
    sums = ops.integer_convolution(
        ops.quantize(inputs, input_scale, zero_point),
        zero_point,
        kernel,
        stride=layer.stride,
        rate=layer.rate,
        padding=layer.padding(inputs.shape[1:3]),
        groups=groups,
    )
    return sums * (input_scale * kernel_scale) + bias


def quantizer() -> Callable[..., Any]:
    """Imports the optional library qwix and returns `qwix.quantize`.

    Raises:
      DeepLabError: qwix is not installed.
    """
    return import_extra("qwix", "quantization", "quantization").quantize


def rounded(array: jax.Array, **how: Any) -> jax.Array:
    """Quantizes an array to int8 and back; the gradient is that of the identity.

    Args:
      array: floating point, any shape.
      **how: keyword arguments of `qwix.quantize`, such as `calibration_method`.

    Source: straight-through estimator, arXiv 1308.3432, section 4.
    """
    from qwix import dequantize

    held = jax.lax.stop_gradient(array).astype(jnp.float32)
    levels = dequantize(quantizer()(held, jnp.int8, **how))
    return array + (levels.astype(array.dtype) - jax.lax.stop_gradient(array))


def rounded_kernel(kernel: jax.Array) -> jax.Array:
    """Quantizes a kernel [k, k, C, D] to int8 and back, with one scale per output channel.

    In training, batch normalization is not folded into the kernel. Folding it multiplies each
    output channel by a constant, and the quantization scale of the channel by the absolute value of
    this constant. The folded kernel therefore has the same int8 values, except for the sign.
    """
    return rounded(kernel, channelwise_axes=(OUTPUT_CHANNELS,))


def rounded_inputs(inputs: jax.Array) -> jax.Array:
    """Quantizes inputs [N, H, W, C] to int8 and back.

    The whole batch has one scale and one zero point, computed from its minimum and maximum.
    """
    return rounded(ops.as_array(inputs), calibration_method="minmax")
