"""Decoders of DeepLab v3+, and the multi-scale features of DeepLab v1 (DeepLab-MSc)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import ConvNorm, Convolution, Form, Normalization, SeparableConvNorm

# Number of output channels of both convolutions on every map of `MultiScaleFeatures`.
CHANNELS = 128
DROPOUT_RATE = 0.5


class MultiScaleFeatures(nn.Module):
    """Multi-scale features of DeepLab-MSc (DeepLab v1, section 4.3).

    The image and intermediate feature maps each pass through two convolutions. The results are
    concatenated with the encoder output.

    Attributes:
      strides: stride of the first convolution on each map. It reduces the map to the size of the
        encoder output. If the sizes still differ, the result is resized. They differ for backbones
        that ignore the last rows and columns of images of some sizes, such as ConvNeXt.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.
      form: settings common to all layers, see `layers.Form`.
    """

    strides: tuple[int, ...]
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, maps: Sequence[jax.Array], train: bool) -> jax.Array:
        """Appends 128 channels for each map to the encoder output.

        Args:
          features: encoder output, [N, h, w, C].
          maps: M maps [N, H, W, K] of different sizes: the image, then intermediate feature maps.
          train: whether to apply dropout.

        Returns:
          [N, h, w, C + 128·M].
        """
        joined = [features]
        for number, (inputs, stride) in enumerate(zip(maps, self.strides, strict=True)):
            hidden = inputs
            for layer, (size, step) in enumerate(((3, stride), (1, 1)), start=1):
                hidden = Convolution(
                    CHANNELS, size, step, form=self.form, name=f"map_{number}/conv{layer}"
                )(hidden)
                hidden = nn.Dropout(DROPOUT_RATE)(hidden, deterministic=not train)
            joined.append(
                ops.resize_bilinear(hidden, features.shape[1:3], align_corners=self.align_corners)
            )
        return jnp.concatenate(joined, axis=-1)


class Decoder(nn.Module):
    """Decoder of DeepLab v3+.

    The encoder output is upsampled and concatenated with low-level features. Convolutions are
    applied to the result.

    Attributes:
      low_level_channels: number of channels to which the low-level features are reduced.
      convolutions: (kernel size, number of channels) of each convolution after the concatenation.
      separable: whether these convolutions are depthwise separable.
      normalization: hyperparameters of batch normalization.
      separable_norm: whether separable convolutions normalize the output of the depthwise
        convolution.
      dropout: for each of these convolutions, the fraction of its output features dropped in
        training; (): no dropout.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.
      form: settings common to all layers, see `layers.Form`.
    """

    low_level_channels: int
    convolutions: tuple[tuple[int, int], ...]
    separable: bool
    normalization: Normalization
    align_corners: bool = True
    separable_norm: bool = True
    dropout: tuple[float, ...] = ()
    form: Form = Form()

    @nn.compact
    def __call__(self, encoded: jax.Array, low_level: jax.Array, train: bool) -> jax.Array:
        """Decodes the encoder output with low-level features.

        Args:
          encoded: encoder output, [N, h, w, C].
          low_level: low-level features, [N, H, W, L].
          train: whether to normalize by batch statistics and to apply dropout.

        Returns:
          [N, H, W, D], with the D channels of the last convolution.
        """
        reduced = ConvNorm(
            self.low_level_channels,
            self.normalization,
            kernel_size=1,
            form=self.form,
            name="low_level",
        )(low_level, train)
        joined = ops.JoinedMaps(encoded, reduced, self.align_corners)
        separable = partial(SeparableConvNorm, inner_norm=self.separable_norm)
        # Only ConvNorm accepts joined maps.
        convolution: Callable[..., Any] = separable if self.separable else ConvNorm
        hidden: jax.Array | ops.JoinedMaps = joined.array() if self.separable else joined
        for number, (kernel_size, channels) in enumerate(self.convolutions, start=1):
            hidden = convolution(
                channels,
                self.normalization,
                kernel_size=kernel_size,
                form=self.form,
                name=f"refine_{number}",
            )(hidden, train)
            if self.dropout:
                rate = self.dropout[number - 1]
                hidden = nn.Dropout(rate)(ops.as_array(hidden), deterministic=not train)
        return ops.as_array(hidden)


class TwoStageDecoder(nn.Module):
    """Two decoders in sequence, the second on finer features (DeepLab v3+, table 2, last row).

    Attributes:
      decoder: `functools.partial` that creates a `Decoder`, and is called once for each stage.
    """

    decoder: partial[Decoder]

    @nn.compact
    def __call__(
        self, encoded: jax.Array, conv3: jax.Array, conv2: jax.Array, train: bool
    ) -> jax.Array:
        """Decodes with features of stage conv3, then with the finer features of stage conv2.

        Args:
          encoded: encoder output, [N, h, w, C].
          conv3: low-level features, finer than `encoded`, [N, h', w', L'].
          conv2: low-level features, finer than `conv3`, [N, H, W, L].
          train: whether to normalize by batch statistics and to apply dropout.

        Returns:
          [N, H, W, D], with the D channels of the last convolution.
        """
        for name, low_level in (("conv3", conv3), ("conv2", conv2)):
            encoded = self.decoder(name=name)(encoded, low_level, train)
        return encoded
