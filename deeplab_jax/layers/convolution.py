"""Convolutions with bias and without normalization, and recording of layer inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.conv_norm import CONVOLUTION_INIT, ConvNorm, Form, Initializer, convolve
from deeplab_jax.layers.integers import convolve_in_integers

CLASSIFIER_INIT = nn.initializers.truncated_normal(0.01)


class Convolution(nn.Module):
    """Convolution with bias → activation.

    Attributes:
      features: number of output channels. It has no effect on a depthwise convolution.
      kernel_size, stride, rate: kernel size, stride and atrous rate of the convolution, in pixels.
      depthwise: whether the convolution is depthwise. It then has as many output channels as input
        channels.
      activation: activation function; None for a linear output.
      kernel_init: initializer of the kernel.
      form: settings common to all layers, see `Form`.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    rate: int = 1
    depthwise: bool = False
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    kernel_init: Initializer = CONVOLUTION_INIT
    form: Form = Form()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features] in the computation dtype."""
        outputs = self.convolve(inputs, self.form.dtype)
        outputs = outputs if self.activation is None else self.activation(outputs)
        return ops.constrain_rows(outputs)

    def padding(self, size: ops.Size) -> ops.Padding:
        """Returns the symmetric padding, which is the same for every input size."""
        del size
        return ops.symmetric_padding(self.kernel_size, self.rate)

    def convolve(self, inputs: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Computes the convolution and adds the bias, without the activation.

        Args:
          inputs: [N, H, W, C], floating point.
          dtype: dtype in which the bias is added, and dtype of the result.
        """
        if self.form.kind == "int8":
            return convolve_in_integers(self, inputs).astype(dtype)
        outputs = convolve(self, inputs, self.kernel_init)
        shape = outputs.shape[-1:]
        bias = self.param("bias", nn.initializers.zeros, shape, self.form.parameter_dtype)
        return outputs.astype(dtype) + bias.astype(dtype)


class Classifier(Convolution):
    """Convolution with bias that maps features to logits.

    The kernel is 1×1, except in DeepLab v2 on a ResNet, where each atrous convolution of the head
    is a classifier.
    """

    kernel_size: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = None
    kernel_init: Initializer = CLASSIFIER_INIT

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [N, h, w, C] to logits [N, h, w, features] in float32 or float64."""
        return ops.constrain_rows(self.convolve(features, self.form.parameter_dtype))


def is_convolution(module: nn.Module) -> bool:
    """Returns whether a module is a `ConvNorm` or a `Convolution`, including classifiers."""
    return isinstance(module, ConvNorm | Convolution)


def record_inputs(
    call: Callable[[], Any],
    of: Callable[[nn.Module], bool],
    seen: Callable[[Any, jax.Array], None],
) -> Any:
    """Runs a network and passes the input of every selected layer to a callback.

    The computation itself does not change.

    Args:
      call: function that initializes or applies the network.
      of: predicate that selects layers.
      seen: callback, called with (bound module, first input) for each selected layer.

    Returns:
      The result of `call`.
    """

    def show(
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: Any,
    ) -> Any:
        if context.method_name == "__call__" and of(context.module):
            seen(context.module, arguments[0])
        return function(*arguments, **keywords)

    with nn.intercept_methods(show):
        return call()
