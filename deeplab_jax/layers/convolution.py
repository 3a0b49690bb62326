"""Convolutions with bias and without normalization, and recording of the inputs of layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.conv_norm import CONVOLUTION_INIT, ConvNorm, Form, Initializer
from deeplab_jax.layers.integers import convolve_in_integers, rounded_inputs, rounded_kernel

CLASSIFIER_INIT = nn.initializers.truncated_normal(0.01)


class Convolution(nn.Module):
    """Convolution with bias → activation.

    Attributes:
      features: output channels.
      kernel_size, stride, rate: kernel size, stride and atrous rate of the convolution, in pixels.
      activation: function applied last; None for a linear output.
      kernel_init: initializer of the kernel.
      form: how the layer computes, see `Form`.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    rate: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    kernel_init: Initializer = CONVOLUTION_INIT
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features] in the form's dtype."""
        outputs = self.convolve(inputs, self.form.dtype)
        outputs = outputs if self.activation is None else self.activation(outputs)
        return ops.constrain_rows(outputs)

    def padding(self, size: ops.Size) -> ops.Padding:
        """Returns the padding, which is independent of the input size."""
        del size
        return ops.symmetric_padding(self.kernel_size, self.rate)

    def convolve(self, inputs: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Returns the convolution plus bias; the bias is added in `dtype`."""
        if self.form.kind == "int8":
            return convolve_in_integers(self, inputs).astype(dtype)
        features = self.form.output_channels(self)
        shape = (self.kernel_size, self.kernel_size, inputs.shape[-1], features)
        kernel = self.param("kernel", self.kernel_init, shape, self.form.parameter_dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), self.form.parameter_dtype)
        if self.form.kind == "rounded":
            inputs, kernel = rounded_inputs(inputs), rounded_kernel(kernel)
        inputs = inputs.astype(self.form.dtype)
        outputs = ops.convolution(
            inputs,
            kernel.astype(self.form.dtype),
            stride=self.stride,
            rate=self.rate,
            padding=self.padding(inputs.shape[1:3]),
        )
        return outputs.astype(dtype) + bias.astype(dtype)


class Classifier(Convolution):
    """Convolution with bias from features to logits, without activation.

    The kernel is 1×1, except in the branches of DeepLab v2 on a ResNet, which are atrous 3×3
    classifiers.
    """

    kernel_size: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = None
    kernel_init: Initializer = CLASSIFIER_INIT

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, features] in at least float32."""
        return ops.constrain_rows(self.convolve(features, self.form.parameter_dtype))


def is_convolution(module: nn.Module) -> bool:
    """Returns whether a module is a convolution with its normalization, bias and activation."""
    return isinstance(module, ConvNorm | Convolution)


def record_inputs(
    call: Callable[[], Any],
    of: Callable[[nn.Module], bool],
    seen: Callable[[nn.Module, jax.Array], None],
) -> Any:
    """Returns the result of a call and reports the inputs of selected layers to a function.

    Used by calibration, conversion and unfolding; the computation does not change.

    Args:
      call: function that initializes or applies a network.
      of: predicate that selects modules.
      seen: function called with each selected module, bound, and its first input.
    """

    def show(function: Callable, arguments: tuple, keywords: dict, context: Any) -> Any:
        if context.method_name == "__call__" and of(context.module):
            seen(context.module, arguments[0])
        return function(*arguments, **keywords)

    with nn.intercept_methods(show):
        return call()
