"""Layers in 8-bit integers: what the convolutions of a quantised network are.

Kernels are int8 with a scale for every output channel, inputs int8 with one scale and zero point
for the whole map (arXiv 1712.05877; per-channel as in arXiv 1806.08342, section 3). A batch
normalisation is part of scale and bias. Between convolutions the network computes as it did.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.conv_norm import ConvNorm, output_channels
from deeplab_jax.layers.convolution import Classifier, Convolution


def quantized() -> contextlib.AbstractContextManager[None]:
    """Lets every convolution compute in 8-bit integers while a network is traced in the context."""
    return nn.intercept_methods(_replace_convolutions)


def is_convolution(module: nn.Module, method: str) -> bool:
    """Whether this call of a method is a whole convolution with all that belongs to it."""
    return method == "__call__" and isinstance(module, ConvNorm | Convolution)


def convolution_padding(module: ConvNorm | Convolution, inputs: jax.Array) -> ops.Padding:
    """Returns the padding of a layer for a certain input."""
    if getattr(module, "same_padding", False):
        return ops.same_padding(inputs.shape[1:3], module.kernel_size, module.stride, module.rate)
    return ops.symmetric_padding(module.kernel_size, module.rate)


def _replace_convolutions(
    call: Callable[..., jax.Array],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> jax.Array:
    if not is_convolution(context.module, context.method_name):
        return call(*arguments, **keywords)
    outputs = _convolve(context.module, ops.as_array(arguments[0]))
    activation = context.module.activation
    if not isinstance(context.module, Classifier):
        # Logits stay in float32.
        outputs = outputs.astype(context.module.dtype)
    return outputs if activation is None else activation(outputs)


def _convolve(module: ConvNorm | Convolution, inputs: jax.Array) -> jax.Array:
    depthwise, channels = getattr(module, "depthwise", False), inputs.shape[-1]
    features = channels if depthwise else output_channels(module, module.features)
    shape = (module.kernel_size, module.kernel_size, 1 if depthwise else channels, features)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    kernel = module.param("kernel", zeros, shape, jnp.int8)
    kernel_scale = module.param("kernel_scale", ones, (features,))
    bias = module.param("bias", zeros, (features,))
    input_scale = module.param("input_scale", ones, ())
    zero_point = module.param("input_zero_point", zeros, (), jnp.int8)
    sums = ops.integer_convolution(
        ops.quantize(inputs, input_scale, zero_point),
        zero_point,
        kernel,
        stride=module.stride,
        rate=module.rate,
        padding=convolution_padding(module, inputs),
        depthwise=depthwise,
    )
    return sums * (input_scale * kernel_scale) + bias
