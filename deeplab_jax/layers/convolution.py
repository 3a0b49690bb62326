"""Convolutions with bias and without normalisation, and how to see the inputs of layers."""

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
      kernel_size, stride, rate: of the convolution; `rate` is the atrous rate in pixels.
      activation: applied last; None for a linear output.
      form: see `Form`.
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
        """Returns the padding, which is the same for every input size."""
        del size
        return ops.symmetric_padding(self.kernel_size, self.rate)

    def convolve(self, inputs: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Returns the convolution with the bias added in a dtype of its own."""
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
    """The convolution with bias that turns features into logits; no activation after it.

    1×1 but for DeepLab v2, whose branches on a ResNet are atrous 3×3 classifiers.
    """

    kernel_size: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = None
    kernel_init: Initializer = CLASSIFIER_INIT

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, features] in at least float32."""
        return ops.constrain_rows(self.convolve(features, self.form.parameter_dtype))


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is a whole convolution with all that belongs to it."""
    return isinstance(module, ConvNorm | Convolution)


def record_inputs(
    call: Callable[[], Any],
    of: Callable[[nn.Module], bool],
    seen: Callable[[nn.Module, jax.Array], None],
) -> Any:
    """Returns what a call gives, and shows the inputs of some layers on the way.

    For calibration, conversion and unfolding; it changes nothing of what is computed.

    Args:
      call: initialises or applies a network.
      of: which modules are looked at.
      seen: takes the module, bound, and its first input.
    """

    def show(function: Callable, arguments: tuple, keywords: dict, context: Any) -> Any:
        if context.method_name == "__call__" and of(context.module):
            seen(context.module, arguments[0])
        return function(*arguments, **keywords)

    with nn.intercept_methods(show):
        return call()
