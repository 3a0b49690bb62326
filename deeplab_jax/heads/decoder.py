"""Decoder of DeepLab v3+, and the multi-scale features of v1."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import ConvNorm, Convolution, Form, Normalization, SeparableConvNorm

# Of both layers on every map.
CHANNELS = 128
DROPOUT_RATE = 0.5


class MultiScaleFeatures(nn.Module):
    """Two convolutions on each of several maps, joined with the main features.

    Attributes:
      strides: of the first convolution on each map, which brings it to the main features' size.
      form: see `layers.Form`.
    """

    strides: tuple[int, ...]
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, maps: Sequence[jax.Array], train: bool) -> jax.Array:
        """Maps [N, h, w, C] and finer maps, the image first, to [N, h, w, C + 128 · maps]."""
        joined = [features]
        for number, (inputs, stride) in enumerate(zip(maps, self.strides, strict=True)):
            hidden = inputs
            for layer, (size, step) in enumerate(((3, stride), (1, 1)), start=1):
                hidden = Convolution(
                    CHANNELS, size, step, form=self.form, name=f"map_{number}/conv{layer}"
                )(hidden)
                hidden = nn.Dropout(DROPOUT_RATE)(hidden, deterministic=not train)
            joined.append(hidden)
        return jnp.concatenate(joined, axis=-1)


class Decoder(nn.Module):
    """Joins the encoder's output with finer low-level features and refines them.

    Attributes:
      low_level_channels: to which the low-level features are reduced.
      convolutions: (kernel size, channels) of each refining convolution.
      separable: depthwise separable refining convolutions.
      normalization: constants of batch normalisation.
      align_corners: convention of resizing.
      form: see `layers.Form`.
    """

    low_level_channels: int
    convolutions: tuple[tuple[int, int], ...]
    separable: bool
    normalization: Normalization
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, encoded: jax.Array, low_level: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] and low-level [N, h', w', L] to [N, h', w', last channels]."""
        reduced = ConvNorm(
            self.low_level_channels,
            self.normalization,
            kernel_size=1,
            form=self.form,
            name="low_level",
        )(low_level, train)
        joined = ops.JoinedMaps(encoded, reduced, self.align_corners)
        convolution = SeparableConvNorm if self.separable else ConvNorm
        hidden: jax.Array | ops.JoinedMaps = joined.array() if self.separable else joined
        for number, (kernel_size, channels) in enumerate(self.convolutions, start=1):
            hidden = convolution(
                channels,
                self.normalization,
                kernel_size=kernel_size,
                form=self.form,
                name=f"refine_{number}",
            )(hidden, train)
        return ops.as_array(hidden)


class TwoStageDecoder(nn.Module):
    """The decoder by way of Conv3 to Conv2 (DeepLab v3+, table 2, last row).

    Attributes: as Decoder's, for both stages.
    """

    low_level_channels: int
    convolutions: tuple[tuple[int, int], ...]
    separable: bool
    normalization: Normalization
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(
        self, encoded: jax.Array, conv3: jax.Array, conv2: jax.Array, train: bool
    ) -> jax.Array:
        """Maps [N, h, w, C] and two finer maps to the finest's size, [N, h', w', channels]."""
        for name, low_level in (("conv3", conv3), ("conv2", conv2)):
            encoded = Decoder(
                self.low_level_channels,
                self.convolutions,
                self.separable,
                self.normalization,
                self.align_corners,
                self.form,
                name=name,
            )(encoded, low_level, train)
        return encoded
