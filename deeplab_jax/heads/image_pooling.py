"""The image-level feature (DeepLab v3, section 3.3)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import ConvNorm, Normalization


def average(
    features: jax.Array, window: tuple[int, int] | None, stride: tuple[int, int] = (1, 1)
) -> jax.Array:
    """Returns averages over windows that lie within the map, or over the whole map.

    Args:
      features: [N, h, w, C]; h and w may be symbols of `jax.export`.
      window: rows and columns to average over, cut to the map; None for the whole map.
      stride: of the windows.

    Returns:
      [N, h', w', C] in at least float32; 1 × 1 for the whole map.
    """
    accurate = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    size = features.shape[1:3]
    if window is None:
        return ops.mean_over_map(accurate)
    if not all(isinstance(side, int) for side in size):
        return ops.mean_over_windows(accurate, window, stride)
    fitting = tuple(map(min, window, size))
    if fitting == size:
        return ops.mean_over_map(accurate)
    return nn.avg_pool(accurate, fitting, strides=stride, padding="VALID")


class ImagePooling(nn.Module):
    """Average over the map → 1×1 convolution → back to the map's size.

    Attributes:
      channels: of the convolution.
      normalization: constants of batch normalisation.
      window: rows and columns to average over, as the released code does for the crop it was
        trained on; None for the whole map.
      align_corners: convention of resizing.
      dtype: of the computation.
    """

    channels: int
    normalization: Normalization
    window: tuple[int, int] | None = None
    align_corners: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels].

        Raises:
          DeepLabError: see `layers.refuse_single_values`.
        """
        pooled = average(features, self.window)
        pooled = ConvNorm(
            self.channels, self.normalization, kernel_size=1, dtype=self.dtype, name="conv"
        )(pooled.astype(self.dtype), train)
        return ops.resize_bilinear(pooled, features.shape[1:3], align_corners=self.align_corners)
