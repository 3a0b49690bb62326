"""Atrous spatial pyramid pooling with concatenation (DeepLab v3, section 3.3)."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.heads.image_pooling import ImagePooling
from deeplab_jax.layers import ConvNorm, Normalization, SeparableConvNorm


class ASPP(nn.Module):
    """Parallel branches of several fields of view, concatenated and projected.

    Attributes:
      rates: atrous rate of each 3×3 branch, in pixels of the feature map.
      channels: of every branch and of the projection.
      image_pooling: whether the image-level feature is one of the branches.
      pooling_window: see ImagePooling.
      separable: depthwise separable 3×3 branches (DeepLab v3+).
      dropout_rate: share of projected features dropped in training.
      normalization: constants of batch normalisation.
      align_corners: convention of resizing.
      dtype: of the computation.
    """

    rates: tuple[int, ...]
    channels: int
    image_pooling: bool
    separable: bool
    dropout_rate: float
    normalization: Normalization
    pooling_window: tuple[int, int] | None = None
    align_corners: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels]."""
        conv_norm = partial(
            ConvNorm, self.channels, normalization=self.normalization, dtype=self.dtype
        )
        atrous = SeparableConvNorm if self.separable else ConvNorm
        branches = []
        if self.image_pooling:
            pooling = ImagePooling(
                self.channels,
                self.normalization,
                self.pooling_window,
                self.align_corners,
                self.dtype,
                name="image_pooling",
            )
            branches.append(pooling(features, train))
        branches.append(conv_norm(kernel_size=1, name="pointwise")(features, train))
        for rate in self.rates:
            branch = atrous(
                self.channels,
                self.normalization,
                rate=rate,
                dtype=self.dtype,
                name=f"rate_{rate}",
            )
            branches.append(branch(features, train))
        projected = conv_norm(kernel_size=1, name="projection")(
            jnp.concatenate(branches, axis=-1), train
        )
        return nn.Dropout(self.dropout_rate)(projected, deterministic=not train)
