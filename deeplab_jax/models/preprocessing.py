"""How the pixels were normalised when a backbone was trained."""

import math

import jax
import jax.numpy as jnp

# Mean colours as the released code has them; torchvision's in units of 1.
SLIM_MEAN = (123.15, 115.90, 103.06)
VGG_MEAN = (123.68, 116.78, 103.94)
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (104.008, 116.669, 122.675)

RGB_PREPROCESSINGS = ("mean", "vgg_mean", "mean_std", "caffe_bgr")
PREPROCESSINGS = ("minus_one_one", *RGB_PREPROCESSINGS, "none")


def mean_pixel(name: str, channels: int = 3) -> tuple[int, ...]:
    """Returns the pixel that stands outside of images: the normalisation's mean, a whole number.

    After the normalisation it is 0, up to rounding (127.5 becomes 127), as the released code pads.

    Args:
      name: one of PREPROCESSINGS.
      channels: number of channels of the image.
    """
    means = {
        "minus_one_one": (127.5,) * channels,
        "mean": SLIM_MEAN,
        "vgg_mean": VGG_MEAN,
        "mean_std": tuple(255 * mean for mean in TORCHVISION_MEAN),
        "caffe_bgr": CAFFE_MEAN_BGR[::-1],
        "none": (0,) * channels,
    }
    return tuple(math.ceil(mean - 0.5) for mean in means[name])


def preprocess(image: jax.Array, name: str, dtype: jnp.dtype) -> jax.Array:
    """Returns RGB pixels 0..255 normalised as `name` says.

    Args:
      image: [N, H, W, 3] (any channels for `minus_one_one` and `none`), uint8 or floating point.
      name: one of PREPROCESSINGS.
      dtype: of the result.
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
