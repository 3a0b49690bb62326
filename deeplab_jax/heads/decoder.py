"""Decoders of DeepLab v3+, and the multi-scale features of v1."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import ConvNorm, Convolution, Form, Normalization, SeparableConvNorm

# Output channels of both convolutions on every map.
CHANNELS = 128
DROPOUT_RATE = 0.5


class MultiScaleFeatures(nn.Module):
    """Two convolutions on each of several maps, concatenated with the features (v1, section 4.3).

    Attributes:
      strides: stride of the first convolution on each map, which reduces it to the size of the
        features.
      form: how the layers compute, see `layers.Form`.
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
    """Concatenates the encoder's output with low-level features and refines them (DeepLab v3+).

    Attributes:
      low_level_channels: number of channels that the low-level features are reduced to.
      convolutions: (kernel size, channels) of each refining convolution.
      separable: whether the refining convolutions are depthwise separable.
      normalization: constants of batch normalization.
      align_corners: convention of bilinear resizing.
      form: how the layers compute, see `layers.Form`.
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
    """Two decoders in sequence, on Conv3 and then Conv2 (DeepLab v3+, table 2, last row).

    Attributes: see `Decoder`; both stages share the values.
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
        """Maps [N, h, w, C] and two finer maps to [N, h', w', channels], the size of conv2."""
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
