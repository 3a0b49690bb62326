"""VGG's fully connected layers as convolutions with a field of view of one's choice."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.layers import Convolution


class FullyConnected(nn.Module):
    """fc6 (atrous) → ReLU → dropout → fc7 (1×1) → ReLU → dropout (DeepLab v1, section 3).

    Attributes:
      channels: of both.
      kernel_size, rate: of fc6: 3 and 12 for LargeFOV (DeepLab v2, table 1).
      dropout_rate: share of features dropped in training.
      dtype: of the computation.
    """

    channels: int
    kernel_size: int = 3
    rate: int = 12
    dropout_rate: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels]."""
        hidden = Convolution(
            self.channels, self.kernel_size, rate=self.rate, dtype=self.dtype, name="fc6"
        )(features)
        hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)
        hidden = Convolution(self.channels, 1, dtype=self.dtype, name="fc7")(hidden)
        return nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)
