"""Atrous separable convolution (DeepLab v3+, section 3.1)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.layers.conv_norm import ConvNorm, Normalization

POINTWISE_INIT = nn.initializers.truncated_normal(0.06)


class SeparableConvNorm(nn.Module):
    """Depthwise convolution → norm → ReLU → 1×1 convolution → norm → ReLU.

    Attributes:
      features: output channels.
      normalization: constants of both batch normalisations.
      kernel_size, rate: of the depthwise convolution.
      dtype: of the computation.
    """

    features: int
    normalization: Normalization
    kernel_size: int = 3
    rate: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Maps [N, H, W, C] to [N, H, W, features]."""
        outputs = ConvNorm(
            inputs.shape[-1],
            self.normalization,
            kernel_size=self.kernel_size,
            rate=self.rate,
            depthwise=True,
            dtype=self.dtype,
            name="depthwise",
        )(inputs, train)
        return ConvNorm(
            self.features,
            self.normalization,
            kernel_size=1,
            kernel_init=POINTWISE_INIT,
            dtype=self.dtype,
            name="pointwise",
        )(outputs, train)
