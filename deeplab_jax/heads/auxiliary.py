"""Auxiliary head for training: a second classifier on an intermediate feature map (torchvision)."""

import jax
from flax import linen as nn

from deeplab_jax.layers import Classifier, ConvNorm, Form, Normalization

DROPOUT_RATE = 0.1


class AuxiliaryHead(nn.Module):
    """Auxiliary head: 3×3 convolution to a quarter of the channels → dropout → 1×1 classifier."""

    num_classes: int
    normalization: Normalization
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to scores [N, h, w, num_classes]."""
        hidden = ConvNorm(features.shape[-1] // 4, self.normalization, form=self.form, name="conv")(
            features, train
        )
        hidden = nn.Dropout(DROPOUT_RATE)(hidden, deterministic=not train)
        return Classifier(self.num_classes, form=self.form, name="classifier")(hidden)
