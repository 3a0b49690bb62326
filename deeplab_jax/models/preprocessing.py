"""Normalization of input pixels, as each published backbone was trained with."""

import jax
import jax.numpy as jnp

from deeplab_jax.architecture import (
    CAFFE_MEAN_BGR,
    SLIM_MEAN,
    TORCHVISION_MEAN,
    TORCHVISION_STD,
    VGG_MEAN,
)


def preprocess(image: jax.Array, name: str, dtype: jnp.dtype) -> jax.Array:
    """Normalizes input pixels.

    Args:
      image: RGB 0..255, [N, H, W, 3], uint8 or floating point; for `minus_one_one` and `none` with
        any number of channels.
      name: preprocessing, one of `architecture.PREPROCESSINGS`.
      dtype: dtype of the result.
    """
    pixels = image.astype(jnp.promote_types(dtype, jnp.float32))
    match name:
        case "minus_one_one":
            pixels = pixels * (2 / 255) - 1
        case "mean":
            pixels = pixels - jnp.asarray(SLIM_MEAN, pixels.dtype)
        case "vgg_mean":
            pixels = pixels - jnp.asarray(VGG_MEAN, pixels.dtype)
        case "mean_std":
            mean, std = (jnp.asarray(v, pixels.dtype) for v in (TORCHVISION_MEAN, TORCHVISION_STD))
            pixels = (pixels / 255 - mean) / std
        case "caffe_bgr":
            pixels = jnp.flip(pixels, -1) - jnp.asarray(CAFFE_MEAN_BGR, pixels.dtype)
    return pixels.astype(dtype)
