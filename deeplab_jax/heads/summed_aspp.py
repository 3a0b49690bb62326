"""Atrous spatial pyramid pooling with a sum of scores (DeepLab v2, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.heads.large_fov import FullyConnected
from deeplab_jax.layers import Classifier


class SummedASPP(nn.Module):
    """Parallel classifiers of several fields of view whose scores are added.

    Attributes:
      num_classes: number of scores a pixel.
      rates: atrous rate of each branch, in pixels of the feature map.
      fc_channels: of fc6 and fc7 in every branch, as on VGG-16; 0 for a 3×3 classifier straight
        from the features, as on ResNet-101.
      dropout_rate: of fc6 and fc7.
      dtype: of the computation.
    """

    num_classes: int
    rates: tuple[int, ...]
    fc_channels: int = 0
    dropout_rate: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to scores [N, h, w, num_classes]."""
        return sum(self._branch(features, rate, train) for rate in self.rates)

    def _branch(self, features: jax.Array, rate: int, train: bool) -> jax.Array:
        name = f"rate_{rate}"
        if not self.fc_channels:
            return Classifier(self.num_classes, 3, rate=rate, dtype=self.dtype, name=name)(features)
        hidden = FullyConnected(
            self.fc_channels, 3, rate, self.dropout_rate, self.dtype, name=name
        )(features, train)
        return Classifier(self.num_classes, dtype=self.dtype, name=f"{name}/fc8")(hidden)
