"""Types of input pixels, and the means and standard deviations of the published normalizations."""

# Mean colors in the order RGB, except for Caffe's. Those of the released code and of Caffe are on
# the scale 0..255, those of torchvision on the scale 0..1.
SLIM_MEAN = (123.15, 115.90, 103.06)
VGG_MEAN = (123.68, 116.78, 103.94)
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN_BGR = (104.008, 116.669, 122.675)

RGB_PREPROCESSINGS = ("mean", "vgg_mean", "mean_std", "caffe_bgr")
PREPROCESSINGS = ("minus_one_one", *RGB_PREPROCESSINGS, "none")
# Types of pixels, with their largest value.
LARGEST_PIXEL = {"uint8": 255, "uint16": 65535}


def subtracted_mean(preprocessing: str, channels: int, image_dtype: str) -> tuple[float, ...]:
    """Returns the pixel value that a normalization maps to 0, one number for each channel.

    Args:
      preprocessing: name of the normalization, one of `PREPROCESSINGS`.
      channels: number of image channels.
      image_dtype: dtype of the pixels, `uint8` or `uint16`.
    """
    means = {
        "minus_one_one": (LARGEST_PIXEL[image_dtype] / 2,) * channels,
        "mean": SLIM_MEAN,
        "vgg_mean": VGG_MEAN,
        "mean_std": tuple(255 * mean for mean in TORCHVISION_MEAN),
        "caffe_bgr": CAFFE_MEAN_BGR[::-1],
        "none": (0,) * channels,
    }
    return means[preprocessing]
