"""Normalization of input pixels, which differs between the published backbones."""

import jax
import jax.numpy as jnp

from deeplab_jax.architecture import Architecture
from deeplab_jax.pixels import (
    CAFFE_MEAN_BGR,
    LARGEST_PIXEL,
    SLIM_MEAN,
    TORCHVISION_MEAN,
    TORCHVISION_STD,
    VGG_MEAN,
)


def preprocess(
    image: jax.Array,
    name: str,
    dtype: jnp.dtype,
    *,
    image_dtype: str = "uint8",
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> jax.Array:
    """Normalizes input pixels.

    Args:
      image: pixels [N, H, W, C], integers or floating point.
      name: preprocessing, one of `pixels.PREPROCESSINGS`. "mean", "vgg_mean", "caffe_bgr", and
        "mean_std" with the default of `mean` require RGB pixels in 0..255. All others accept any
        channels.
      dtype: dtype of the result.
      image_dtype: dtype of the stored pixels, `uint8` or `uint16`. `minus_one_one` maps the range
        of this dtype to -1..1.
      mean, std: mean and standard deviation of each channel for `mean_std`, in pixel values; ():
        those of ImageNet.

    Returns:
      Normalized pixels, [N, H, W, C].
    """
    pixels = image.astype(jnp.promote_types(dtype, jnp.float32))
    match name:
        case "minus_one_one":
            pixels = pixels * (2 / LARGEST_PIXEL[image_dtype]) - 1
        case "mean":
            pixels = pixels - jnp.asarray(SLIM_MEAN, pixels.dtype)
        case "vgg_mean":
            pixels = pixels - jnp.asarray(VGG_MEAN, pixels.dtype)
        case "mean_std" if mean:
            center, spread = (jnp.asarray(values, pixels.dtype) for values in (mean, std))
            pixels = (pixels - center) / spread
        case "mean_std":
            center, spread = (
                jnp.asarray(v, pixels.dtype) for v in (TORCHVISION_MEAN, TORCHVISION_STD)
            )
            pixels = (pixels / 255 - center) / spread
        case "caffe_bgr":
            pixels = jnp.flip(pixels, -1) - jnp.asarray(CAFFE_MEAN_BGR, pixels.dtype)
    return pixels.astype(dtype)


def channel_scale(options: Architecture) -> tuple[float, ...]:
    """Returns the factor by which the normalization multiplies pixel values, for each channel.

    The channels are in the order in which the first layer of the network receives them. This order
    is BGR for `caffe_bgr`.
    """
    match options.preprocessing:
        case "minus_one_one":
            return (2 / LARGEST_PIXEL[options.image_dtype],) * options.in_channels
        case "mean_std":
            spread = options.pixel_std or tuple(255 * std for std in TORCHVISION_STD)
            return tuple(1 / std for std in spread)
    return (1.0,) * options.in_channels


def band_spread(options: Architecture) -> float:
    """Returns the assumed standard deviation of the normalized pixels of bands other than RGB.

    It is 1 for `mean_std`. For other normalizations, the standard deviation of the bands, relative
    to the largest value of their dtype, is assumed to be that of ImageNet.
    """
    if options.preprocessing == "mean_std":
        return 1.0
    typical = LARGEST_PIXEL[options.image_dtype] * sum(TORCHVISION_STD) / len(TORCHVISION_STD)
    return typical * channel_scale(options)[0]
