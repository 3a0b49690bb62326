"""Augmentation as a pure function of an example and a random generator.

The color distortion follows SSD (arXiv:1512.02325) and is common in segmentation recipes. At
strength 1, it shifts brightness by up to ±32 of 255 levels and hue by up to ±18 degrees, and
multiplies contrast and saturation by 0.5–1.5.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from deeplab_jax import config_fields
from deeplab_jax.data.crops import IMAGE_SAMPLING, LABEL_SAMPLING, MEAN_PIXEL, random_view, render
from deeplab_jax.data.datasets import Example
from deeplab_jax.declarations import check_value
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of

BRIGHTNESS = 32.0
CONTRAST = 0.5
SATURATION = 0.5
# OpenCV counts hue in steps of two degrees.
HUE = 9.0
HUE_CYCLE = 180

_LEVELS = np.arange(256, dtype=np.float32)


def distort(image: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Returns the image with randomly changed brightness, contrast, saturation and hue.

    Args:
      image: uint8 [H, W, 3] RGB; at strength 0, an image of any shape and dtype.
      random: random generator; four numbers are drawn from it for any strength.
      strength: factor that scales the ranges of all four changes; 0 returns the image unchanged.
    """
    brightness, contrast, saturation, hue = strength * random.uniform(-1, 1, 4)
    if strength == 0:
        return image
    lit = _as_table(_LEVELS * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness)
    turned = ((_LEVELS + HUE * hue) % HUE_CYCLE).astype(np.uint8)
    saturated = _as_table(_LEVELS * (1 + SATURATION * saturation))
    hsv = cv2.cvtColor(cv2.LUT(image, lit), cv2.COLOR_RGB2HSV)
    tables = np.stack([turned, saturated, _as_table(_LEVELS)], axis=-1)[None]
    return cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB)


def _as_table(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


# Function of a picture and a strength in -1..1. Only the enhancements use the sign of the strength.
ColorOperation = Callable[[Image.Image, float], Image.Image]
# Magnitude at which RandAugment's operations are strongest. At this magnitude, enhancement factors
# are 1 ± ENHANCEMENT, and `posterize` removes POSTERIZED_BITS bits.
MAX_MAGNITUDE = 30
ENHANCEMENT = 0.9
POSTERIZED_BITS = 4


def _enhanced(enhancer: Callable[[Image.Image], Any]) -> ColorOperation:
    """Returns a color operation that applies a Pillow enhancer, such as `ImageEnhance.Color`.

    The operation takes a strength from −1 to 1, and enhances by the factor 1 + 0.9·strength.
    """
    return lambda picture, strength: enhancer(picture).enhance(1 + ENHANCEMENT * strength)


# Color operations of RandAugment.
COLOR_OPERATIONS: dict[str, ColorOperation] = {
    "identity": lambda picture, _: picture,
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "solarize": lambda picture, strength: ImageOps.solarize(
        picture, math.ceil(255 * (1 - abs(strength)))
    ),
    "posterize": lambda picture, strength: ImageOps.posterize(
        picture, 8 - round(POSTERIZED_BITS * abs(strength))
    ),
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}


def randaugment(
    image: np.ndarray, random: np.random.Generator, number: int, magnitude: float
) -> np.ndarray:
    """Returns the image after random color operations of RandAugment.

    The operations are drawn with replacement, and all have the same magnitude. Operations that move
    pixels are not used, because the label would have to be changed, too. Magnitudes have the same
    meaning as in torchvision's `RandAugment`.

    Args:
      image: uint8 [H, W, 3] RGB; if `number` is 0, an image of any shape and dtype.
      random: random generator; if `number` is 0, nothing is drawn from it.
      number: number of operations.
      magnitude: magnitude of the operations, from 0 to 30.

    Source: arXiv 1909.13719.
    """
    if not number:
        return image
    picture = Image.fromarray(image)
    operations = list(COLOR_OPERATIONS.values())
    for _ in range(number):
        operation = operations[int(random.integers(len(operations)))]
        sign = 1 if random.integers(2) else -1
        picture = operation(picture, sign * magnitude / MAX_MAGNITUDE)
    return np.asarray(picture)


def size_in_range(
    size: tuple[int, int], shortest: int, longest: int, factor: int
) -> tuple[int, int]:
    """Returns the (height, width) to which an image is resized, given limits for its sides.

    The shorter side is resized to `shortest` pixels, unless the longer side would then exceed
    `longest`. In that case, the longer side is resized to `longest`. The aspect ratio changes only
    by rounding. The DeepLab authors' code resizes the images of ADE20K in this way.

    Args:
      size: (height, width) of the image in pixels.
      shortest: length of the shorter side after resizing, in pixels; 0: its original length.
      longest: maximum length of the longer side after resizing, in pixels; 0: no limit. If both
        `shortest` and `longest` are 0, the size is unchanged, and `factor` is ignored.
      factor: both sides are rounded up to k·factor + 1 pixels for a whole number k. The limit
        `longest` is rounded down to such a number, so that no side exceeds it. 0: both sides are
        rounded down to whole pixels.

    Source: `resize_to_range` of tensorflow/models, research/deeplab.
    """
    if not shortest and not longest:
        return size
    scale = shortest / min(size) if shortest else 1.0
    if longest:
        limit = longest - (longest - 1) % factor if factor else longest
        scale = min(scale, limit / max(size))
    height, width = (max(1, _rounded_up(int(side * scale + 1e-6), factor)) for side in size)
    return height, width


def _rounded_up(side: int, factor: int) -> int:
    return side + -(side - 1) % factor if factor else side


# Maximum number of crops that `augment` draws. It returns the first crop that satisfies
# `max_class_fraction`, or the last crop if none does.
DRAWS = 10


@dataclasses.dataclass(frozen=True)
class Augmentation(config_fields.Augmentation):
    """Settings of the augmentation: change colors, resize, scale, pad, crop, rotate, flip and mix.

    The steps are applied in this order. Mixing combines the crop with crops of other examples. The
    config section `augmentation` declares and documents all fields except `fill`.

    Attributes:
      fill: value of each channel of pixels outside the image, normally the mean pixel that the
        model subtracts.
    """

    fill: tuple[int, ...] = MEAN_PIXEL

    def __post_init__(self) -> None:
        for field in dataclasses.fields(config_fields.Augmentation):
            check_value(config_fields.Augmentation, field, getattr(self, field.name))
        if self.min_scale > self.max_scale:
            raise DeepLabError(
                f"augmentation.min_scale={self.min_scale} must not be above "
                f"augmentation.max_scale={self.max_scale}"
            )
        self._check_mixing()

    @property
    def mixes(self) -> bool:
        """Returns whether crops may be mixed with crops of other examples."""
        return bool(self.cutmix or self.classmix or self.copy_paste)

    def _check_mixing(self) -> None:
        """Checks that the settings of mixing can be combined.

        Raises:
          DeepLabError: the probabilities of mixing add up to more than 1, or only one of
            `copy_paste` and `copy_paste_classes` is set.
        """
        total = self.cutmix + self.classmix + self.copy_paste
        if total > 1 + 1e-9:
            raise DeepLabError(
                f"augmentation.cutmix, classmix and copy_paste add up to {total:g}; each crop is "
                "mixed at most once, so the sum of these probabilities must be at most 1"
            )
        if bool(self.copy_paste) != bool(self.copy_paste_classes):
            raise DeepLabError(
                f"augmentation.copy_paste={self.copy_paste:g} and copy_paste_classes="
                f"{self.copy_paste_classes}: set both, or neither"
            )


def augment(
    example: Example,
    random: np.random.Generator,
    augmentation: Augmentation,
    num_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Returns a randomly augmented crop of an example.

    Args:
      example: training example of any size.
      random: random generator; equal states give equal crops.
      augmentation: augmentation to apply.
      num_classes: number of classes of the dataset, which determines the void label. None: void is
        65535 for uint16 labels and 255 otherwise.

    Returns:
      {"image": [h, w, C], "label": [h, w]}, where (h, w) is the crop size. The dtypes are those of
      the example. Pixels outside the example have the value `augmentation.fill` in the image and
      are void in the label. Pixels are copied exactly if the settings disable resizing, scaling,
      rotation and color changes.
    """
    size, label = augmentation.crop_size, example["label"]
    scale = _random_scale(random, augmentation)
    limits = (augmentation.min_resize, augmentation.max_resize, augmentation.resize_factor)
    resized = size_in_range(label.shape, *limits)
    # Resizing and random scaling are one resampling. Rounding makes the factors of height and
    # width slightly different.
    scales = tuple(scale * (to / side) for to, side in zip(resized, label.shape, strict=True))
    void = void_of(label, num_classes)
    for _ in range(DRAWS):
        view = random_view(
            random,
            label.shape,
            size,
            scale=scales,
            rotation=augmentation.rotation,
            flip=augmentation.flip,
        )
        crop = render(label, view, size, LABEL_SAMPLING._replace(outside=void))
        largest = augmentation.max_class_fraction
        if largest == 1 or _largest_class_fraction(crop, void) < largest:
            break
    image = distort(example["image"], random, augmentation.photometric)
    operations = augmentation.randaugment, augmentation.randaugment_magnitude
    image = randaugment(image, random, *operations)
    sampling = IMAGE_SAMPLING._replace(outside=augmentation.fill)
    return {"image": render(image, view, size, sampling), "label": crop}


def _largest_class_fraction(label: np.ndarray, void: int) -> float:
    """Returns the fraction of non-void pixels that belong to the most frequent class.

    The result is 1 if all pixels are void.
    """
    counts = np.bincount(label[label != void], minlength=1)
    return counts.max() / counts.sum() if counts.any() else 1.0


def _random_scale(random: np.random.Generator, augmentation: Augmentation) -> float:
    low, high, step = augmentation.min_scale, augmentation.max_scale, augmentation.scale_step
    if step == 0:
        return random.uniform(low, high)
    # Adding 1e-6 before truncation includes `high` despite rounding errors.
    return low + step * int(random.integers(int((high - low) / step + 1e-6) + 1))
