"""A second classifier on an inner map, to help training (torchvision's FCN head)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.layers import Classifier, ConvNorm, Normalization

DROPOUT_RATE = 0.1


class AuxiliaryHead(nn.Module):
    """3×3 convolution to a quarter of the channels → dropout → 1×1 classifier."""

    num_classes: int
    normalization: Normalization
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to scores [N, h, w, num_classes]."""
        hidden = ConvNorm(
            features.shape[-1] // 4, self.normalization, dtype=self.dtype, name="conv"
        )(features, train)
        hidden = nn.Dropout(DROPOUT_RATE)(hidden, deterministic=not train)
        return Classifier(self.num_classes, dtype=self.dtype, name="classifier")(hidden)
