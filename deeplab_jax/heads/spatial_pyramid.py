"""Spatial pyramid pooling, the ancestor of ASPP (arXiv 1406.4729), on a feature map."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import ConvNorm, Normalization

# Bins along each side: the four-level pyramid of SPP-net, section 2.2.
LEVELS = (1, 2, 3, 6)


def pool_bins(features: jax.Array, bins: int) -> jax.Array:
    """Returns the maximum in each of bins × bins parts of a map, however large it is.

    Bin i of n covers ⌊i·h/n⌋ to ⌈(i+1)·h/n⌉ (SPP-net, section 2.2).

    Args:
      features: [N, h, w, C].
      bins: along each side.

    Returns:
      [N, bins, bins, C].
    """
    for axis in (1, 2):
        length = features.shape[axis]
        edges = [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]
        parts = [jax.lax.slice_in_dim(features, *edge, axis=axis) for edge in edges]
        features = jnp.concatenate([_maximum(part, axis) for part in parts], axis)
    return features


def _maximum(part: jax.Array, axis: int) -> jax.Array:
    """Not jnp.max: its gradient, which divides by the number of maxima found, was NaN at times."""
    window = (part.shape[1], 1) if axis == 1 else (1, part.shape[2])
    return nn.max_pool(part, window, padding="VALID")


class SpatialPyramidPooling(nn.Module):
    """Maxima over coarser and coarser bins beside the map itself, concatenated and projected.

    Attributes:
      channels: of every level and of the projection.
      dropout_rate: share of projected features dropped in training.
      normalization: constants of batch normalisation.
      align_corners: convention of resizing.
      dtype: of the computation.
    """

    channels: int
    dropout_rate: float
    normalization: Normalization
    align_corners: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels].

        Raises:
          DeepLabError: the coarsest level has one value per channel to train on; see
            `layers.refuse_single_values`.
        """
        conv_norm = partial(
            ConvNorm, self.channels, self.normalization, kernel_size=1, dtype=self.dtype
        )
        branches = [conv_norm(name="pointwise")(features, train)]
        for bins in LEVELS:
            pooled = conv_norm(name=f"bins_{bins}")(pool_bins(features, bins), train)
            branches.append(
                ops.resize_bilinear(pooled, features.shape[1:3], align_corners=self.align_corners)
            )
        projected = conv_norm(name="projection")(jnp.concatenate(branches, axis=-1), train)
        return nn.Dropout(self.dropout_rate)(projected, deterministic=not train)
