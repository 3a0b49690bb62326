"""LargeFOV (DeepLab v1), ASPP (v2 and v3), image pooling, and spatial pyramid pooling."""

import functools
from collections.abc import Callable
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
    """LargeFOV: fc6 (atrous) → ReLU → dropout → fc7 (1×1) → ReLU → dropout (DeepLab v1, section 3).

    Attributes:
      channels: number of output channels of fc6 and fc7.
      kernel_size, rate: kernel size and atrous rate of fc6 (default: 3 and 12, as in the network
        DeepLab-LargeFOV; DeepLab v2, table 1).
      dropout_rate: fraction of the outputs of fc6 and fc7 dropped in training.
      form: settings common to all layers, see `layers.Form`.
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
    """ASPP of DeepLab v2: parallel atrous classifiers whose scores are added.

    Attributes:
      num_classes: number of scores per pixel.
      rates: atrous rate of each branch, in feature-map pixels.
      fc_channels: number of output channels of the two hidden layers fc6 and fc7 that precede the
        classifier in every branch, as on VGG-16; 0: every branch is a 3×3 classifier without hidden
        layers, as on ResNet-101.
      dropout_rate: fraction of the outputs of fc6 and fc7 dropped in training.
      form: settings common to all layers, see `layers.Form`.
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
    """Averages features over windows without padding, or over the whole map.

    Args:
      features: [N, h, w, C]; h and w may be symbolic dimensions of `jax.export`.
      window: height and width of the windows in feature-map pixels. Windows larger than the map
        are reduced to its size. None: the whole map.
      stride: distance between neighboring windows (along h, along w), in feature-map pixels.

    Returns:
      [N, h', w', C] in at least float32; [N, 1, 1, C] for the whole map.
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
    # One axis at a time: the additions per window are the sum of its sides, not their product.
    tall = nn.avg_pool(accurate, (fitting[0], 1), strides=(stride[0], 1), padding="VALID")
    return nn.avg_pool(tall, (1, fitting[1]), strides=(1, stride[1]), padding="VALID")


class ImagePooling(nn.Module):
    """Image pooling: average → 1×1 convolution → bilinear upsampling (DeepLab v3, section 3.3).

    Attributes:
      channels: number of output channels.
      normalization: hyperparameters of batch normalization.
      window: height and width of the windows to average over, in feature-map pixels (the released
        code averages over windows of the size of a training crop); None: the whole map.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.
      form: settings common to all layers, see `layers.Form`.
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
          DeepLabError: in training, batch normalization would normalize a single value per channel,
            because it normalizes each image alone and the map has only one pooling window.
        """
        pooled = average(features, self.window)
        pooled = ConvNorm(
            self.channels, self.normalization, kernel_size=1, form=self.form, name="conv"
        )(pooled.astype(self.form.dtype), train)
        return ops.resize_bilinear(pooled, features.shape[1:3], align_corners=self.align_corners)


# Number of bins along each side, per level of the pyramid (SPP-net, section 2.2).
LEVELS = (1, 2, 3, 6)


def pool_bins(features: jax.Array, bins: int) -> jax.Array:
    """Divides a map of any size into bins × bins parts and returns the maximum of each.

    Along a side of h pixels, bin i of n covers the pixels ⌊i·h/n⌋ to ⌈(i+1)·h/n⌉ − 1 (SPP-net,
    section 2.2).

    Args:
      features: [N, h, w, C].
      bins: number of bins along each side.

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
    """Returns the maximum along an axis, by max pooling instead of `jnp.max`.

    The gradient of `jnp.max` divides by the number of elements that are equal to the maximum. If
    the maximum and the elements are rounded differently, this number can be 0, and the gradient is
    then NaN.
    """
    window = (part.shape[1], 1) if axis == 1 else (1, part.shape[2])
    return nn.max_pool(part, window, padding="VALID")


class SpatialPyramidPooling(nn.Module):
    """Spatial pyramid pooling: four levels of max pooling, concatenated with the features.

    The levels divide the map into 1, 4, 9 and 36 bins. In each level, a 1×1 convolution projects
    the maximum of each bin, and the result is upsampled. Another 1×1 convolution projects the
    features. All results are concatenated and projected by a last 1×1 convolution.

    Attributes:
      channels: number of output channels of every convolution.
      dropout_rate: fraction of the outputs of the last convolution dropped in training.
      normalization: hyperparameters of batch normalization.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.
      form: settings common to all layers, see `layers.Form`.
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
          DeepLabError: in training, batch normalization would normalize a single value per channel
            in the level with one bin, because it normalizes each image alone.
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
    """ASPP of DeepLab v3: parallel convolutions and image pooling, concatenated and projected.

    Attributes:
      rates: atrous rate of each 3×3 branch, in feature-map pixels.
      channels: number of output channels of every branch and of the projection.
      image_pooling: whether image pooling is one of the branches.
      pooling_window: window of image pooling, see `ImagePooling`.
      separable: whether the 3×3 branches are depthwise separable (DeepLab v3+).
      separable_norm: whether separable branches normalize the output of the depthwise convolution.
      projection_size: kernel size of the projection.
      dropout_rate: fraction of the projected features dropped in training.
      normalization: hyperparameters of batch normalization.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.
      form: settings common to all layers, see `layers.Form`.
    """

    rates: tuple[int, ...]
    channels: int
    image_pooling: bool
    separable: bool
    dropout_rate: float
    normalization: Normalization
    pooling_window: tuple[int, int] | None = None
    align_corners: bool = True
    separable_norm: bool = True
    projection_size: int = 1
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels]."""
        conv_norm = partial(
            ConvNorm, self.channels, normalization=self.normalization, form=self.form
        )
        separable = partial(SeparableConvNorm, inner_norm=self.separable_norm)
        atrous: Callable[..., nn.Module] = separable if self.separable else ConvNorm
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
        # 8-bit layers round their inputs, which must be arrays.
        trained = self.form.kind == "trained"
        shared = ops.with_halo(features, max(self.rates, default=0)) if trained else features
        for rate in self.rates:
            branch = atrous(
                self.channels,
                self.normalization,
                rate=rate,
                form=self.form,
                name=f"rate_{rate}",
            )
            branches.append(branch(shared, train))
        projected = conv_norm(kernel_size=self.projection_size, name="projection")(
            jnp.concatenate(branches, axis=-1), train
        )
        return nn.Dropout(self.dropout_rate)(projected, deterministic=not train)
