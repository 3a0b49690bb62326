"""Atrous separable convolution (DeepLab v3+, section 3.1)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers.conv_norm import DEPTHWISE_INIT, ConvNorm, Initializer, Normalization

POINTWISE_INIT = nn.initializers.truncated_normal(0.06)


class SeparableConvNorm(nn.Module):
    """Depthwise convolution → norm → activation → 1×1 convolution → norm → activation.

    Attributes:
      features: output channels.
      normalization: constants of both batch normalisations.
      kernel_size, stride, rate: of the depthwise convolution; a pair of rates is for rows and
        columns.
      activation: after both; None where the released Xception has none.
      depthwise_init, pointwise_init: of the kernels.
      dtype: of the computation.
    """

    features: int
    normalization: Normalization
    kernel_size: int = 3
    stride: int = 1
    rate: ops.Rate = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    depthwise_init: Initializer = DEPTHWISE_INIT
    pointwise_init: Initializer = POINTWISE_INIT
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, ⌈H/stride⌉, ⌈W/stride⌉, features]."""
        outputs = ConvNorm(
            inputs.shape[-1],
            self.normalization,
            kernel_size=self.kernel_size,
            stride=self.stride,
            rate=self.rate,
            depthwise=True,
            activation=self.activation,
            kernel_init=self.depthwise_init,
            dtype=self.dtype,
            name="depthwise",
        )(inputs, train)
        return ConvNorm(
            self.features,
            self.normalization,
            kernel_size=1,
            activation=self.activation,
            kernel_init=self.pointwise_init,
            dtype=self.dtype,
            name="pointwise",
        )(outputs, train)
