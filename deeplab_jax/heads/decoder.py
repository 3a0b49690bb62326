"""The decoder of DeepLab v3+ (section 3.1 and figure 2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import ConvNorm, Normalization, SeparableConvNorm


class Decoder(nn.Module):
    """Joins the encoder's output with finer low-level features and refines them.

    Attributes:
      low_level_channels: to which the low-level features are reduced.
      convolutions: (kernel size, channels) of each refining convolution.
      separable: depthwise separable refining convolutions.
      normalization: constants of batch normalisation.
      align_corners: convention of resizing.
      dtype: of the computation.
    """

    low_level_channels: int
    convolutions: tuple[tuple[int, int], ...]
    separable: bool
    normalization: Normalization
    align_corners: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, encoded: jax.Array, low_level: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] and low-level [N, h', w', L] to [N, h', w', last channels]."""
        reduced = ConvNorm(
            self.low_level_channels,
            self.normalization,
            kernel_size=1,
            dtype=self.dtype,
            name="low_level",
        )(low_level, train)
        joined = ops.JoinedMaps(encoded, reduced, self.align_corners)
        convolution, hidden = (
            (SeparableConvNorm, joined.array()) if self.separable else (ConvNorm, joined)
        )
        for number, (kernel_size, channels) in enumerate(self.convolutions, start=1):
            hidden = convolution(
                channels,
                self.normalization,
                kernel_size=kernel_size,
                dtype=self.dtype,
                name=f"refine_{number}",
            )(hidden, train)
        return hidden


class TwoStageDecoder(nn.Module):
    """The decoder by way of Conv3 to Conv2 (DeepLab v3+, table 2, last row).

    Attributes: as Decoder's, for both stages.
    """

    low_level_channels: int
    convolutions: tuple[tuple[int, int], ...]
    separable: bool
    normalization: Normalization
    align_corners: bool = True
    dtype: jnp.dtype = jnp.float32

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
                self.dtype,
                name=name,
            )(encoded, low_level, train)
        return encoded
