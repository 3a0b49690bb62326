"""ASPP in all its forms: LargeFOV, summed (v2), concatenated (v3), with image pooling."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.layers import (
    Classifier,
    ConvNorm,
    Convolution,
    Form,
    Normalization,
    SeparableConvNorm,
)


class LargeFOV(nn.Module):
    """fc6 (atrous) → ReLU → dropout → fc7 (1×1) → ReLU → dropout (DeepLab v1, section 3).

    Attributes:
      channels: of both.
      kernel_size, rate: of fc6: 3 and 12 for LargeFOV (DeepLab v2, table 1).
      dropout_rate: share of features dropped in training.
      form: see `layers.Form`.
    """

    channels: int
    kernel_size: int = 3
    rate: int = 12
    dropout_rate: float = 0.5
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels]."""
        hidden = Convolution(
            self.channels, self.kernel_size, rate=self.rate, form=self.form, name="fc6"
        )(features)
        hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)
        hidden = Convolution(self.channels, 1, form=self.form, name="fc7")(hidden)
        return nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)


class SummedASPP(nn.Module):
    """Parallel classifiers of several fields of view whose scores are added.

    Attributes:
      num_classes: number of scores a pixel.
      rates: atrous rate of each branch, in pixels of the feature map.
      fc_channels: of fc6 and fc7 in every branch, as on VGG-16; 0 for a 3×3 classifier straight
        from the features, as on ResNet-101.
      dropout_rate: of fc6 and fc7.
      form: see `layers.Form`.
    """

    num_classes: int
    rates: tuple[int, ...]
    fc_channels: int = 0
    dropout_rate: float = 0.5
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to scores [N, h, w, num_classes]."""
        branches = [self._branch(features, rate, train) for rate in self.rates]
        return functools.reduce(jnp.add, branches)

    def _branch(self, features: jax.Array, rate: int, train: bool) -> jax.Array:
        name = f"rate_{rate}"
        if not self.fc_channels:
            return Classifier(self.num_classes, 3, rate=rate, form=self.form, name=name)(features)
        hidden = LargeFOV(self.fc_channels, 3, rate, self.dropout_rate, self.form, name=name)(
            features, train
        )
        return Classifier(self.num_classes, form=self.form, name=f"{name}/fc8")(hidden)


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
      form: see `layers.Form`.
    """

    channels: int
    normalization: Normalization
    window: tuple[int, int] | None = None
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels].

        Raises:
          DeepLabError: see `layers.refuse_single_values`.
        """
        pooled = average(features, self.window)
        pooled = ConvNorm(
            self.channels, self.normalization, kernel_size=1, form=self.form, name="conv"
        )(pooled.astype(self.form.dtype), train)
        return ops.resize_bilinear(pooled, features.shape[1:3], align_corners=self.align_corners)


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
      form: see `layers.Form`.
    """

    channels: int
    dropout_rate: float
    normalization: Normalization
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels].

        Raises:
          DeepLabError: the coarsest level has one value per channel to train on; see
            `layers.refuse_single_values`.
        """
        conv_norm = partial(
            ConvNorm, self.channels, self.normalization, kernel_size=1, form=self.form
        )
        branches = [conv_norm(name="pointwise")(features, train)]
        for bins in LEVELS:
            pooled = conv_norm(name=f"bins_{bins}")(pool_bins(features, bins), train)
            branches.append(
                ops.resize_bilinear(pooled, features.shape[1:3], align_corners=self.align_corners)
            )
        projected = conv_norm(name="projection")(jnp.concatenate(branches, axis=-1), train)
        return nn.Dropout(self.dropout_rate)(projected, deterministic=not train)


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
      form: see `layers.Form`.
    """

    rates: tuple[int, ...]
    channels: int
    image_pooling: bool
    separable: bool
    dropout_rate: float
    normalization: Normalization
    pooling_window: tuple[int, int] | None = None
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels]."""
        conv_norm = partial(
            ConvNorm, self.channels, normalization=self.normalization, form=self.form
        )
        atrous = SeparableConvNorm if self.separable else ConvNorm
        branches = []
        if self.image_pooling:
            pooling = ImagePooling(
                self.channels,
                self.normalization,
                self.pooling_window,
                self.align_corners,
                self.form,
                name="image_pooling",
            )
            branches.append(pooling(features, train))
        branches.append(conv_norm(kernel_size=1, name="pointwise")(features, train))
        for rate in self.rates:
            branch = atrous(
                self.channels,
                self.normalization,
                rate=rate,
                form=self.form,
                name=f"rate_{rate}",
            )
            branches.append(branch(features, train))
        projected = conv_norm(kernel_size=1, name="projection")(
            jnp.concatenate(branches, axis=-1), train
        )
        return nn.Dropout(self.dropout_rate)(projected, deterministic=not train)
