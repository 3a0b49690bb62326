"""Convolutions with bias and without normalisation: VGG's, and those that give logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.conv_norm import (
    CONVOLUTION_INIT,
    Initializer,
    output_channels,
    parameter_dtype,
)

CLASSIFIER_INIT = nn.initializers.truncated_normal(0.01)


class Convolution(nn.Module):
    """Convolution with bias → activation.

    Attributes:
      features: output channels.
      kernel_size, stride, rate: of the convolution; `rate` is the atrous rate in pixels.
      activation: applied last; None for a linear output.
      dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    rate: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    kernel_init: Initializer = CONVOLUTION_INIT
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features] in `dtype`."""
        outputs, bias = self.convolve(inputs)
        outputs = outputs + bias.astype(self.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def convolve(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the convolution and the bias that is still to be added."""
        dtype = parameter_dtype(self.dtype)
        features = output_channels(self, self.features)
        shape = (self.kernel_size, self.kernel_size, inputs.shape[-1], features)
        kernel = self.param("kernel", self.kernel_init, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, (features,), dtype)
        outputs = ops.convolution(
            inputs.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            rate=self.rate,
            padding=ops.symmetric_padding(self.kernel_size, self.rate),
        )
        return outputs, bias


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
        logits, bias = self.convolve(features)
        return logits.astype(bias.dtype) + bias
