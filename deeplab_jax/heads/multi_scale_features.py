"""DeepLab-MSc: the image and inner maps beside the last layer (DeepLab v1, section 4.3)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.layers import Convolution

# Of both layers on every map.
CHANNELS = 128
DROPOUT_RATE = 0.5


class MultiScaleFeatures(nn.Module):
    """Two convolutions on each of several maps, joined with the main features.

    Attributes:
      strides: of the first convolution on each map, which brings it to the main features' size.
      dtype: of the computation.
    """

    strides: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, maps: Sequence[jax.Array], train: bool) -> jax.Array:
        """Maps [N, h, w, C] and finer maps, the image first, to [N, h, w, C + 128 · maps]."""
        joined = [features]
        for number, (inputs, stride) in enumerate(zip(maps, self.strides, strict=True)):
            hidden = inputs
            for layer, (size, step) in enumerate(((3, stride), (1, 1)), start=1):
                hidden = Convolution(
                    CHANNELS, size, step, dtype=self.dtype, name=f"map_{number}/conv{layer}"
                )(hidden)
                hidden = nn.Dropout(DROPOUT_RATE)(hidden, deterministic=not train)
            joined.append(hidden)
        return jnp.concatenate(joined, axis=-1)
