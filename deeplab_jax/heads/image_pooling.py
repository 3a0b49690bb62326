"""The image-level feature (DeepLab v3, section 3.3)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers import ConvNorm, Normalization


class ImagePooling(nn.Module):
    """Average over the whole map → 1×1 convolution → broadcast back."""

    channels: int
    normalization: Normalization
    align_corners: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels], the same at every place.

        Raises:
          DeepLabError: training with N = 1, where batch normalisation of one value is always 0.
        """
        if train and features.shape[0] == 1 and not self.is_initializing():
            raise DeepLabError(
                "image pooling cannot train on a batch of 1: its one value a channel would be "
                "normalised to zero; use a batch of at least 2 or image_pooling='none'"
            )
        pooled = jnp.mean(features.astype(jnp.promote_types(self.dtype, jnp.float32)), (1, 2))
        pooled = ConvNorm(
            self.channels, self.normalization, kernel_size=1, dtype=self.dtype, name="conv"
        )(pooled[:, None, None].astype(self.dtype), train)
        return ops.resize_bilinear(pooled, features.shape[1:3], align_corners=self.align_corners)
