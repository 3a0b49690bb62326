"""Augmentation: a pure function of an example and a random generator.

Strength 1 is the distortion of SSD (arXiv:1512.02325) that the field's segmentation recipes took
over: brightness ±32, contrast and saturation 0.5–1.5, hue ±18 degrees.
"""

import dataclasses

import cv2
import numpy as np

from deeplab_jax.data.crops import (
    IMAGE_SAMPLING,
    MEAN_PIXEL,
    View,
    label_sampling,
    random_view,
    render,
)
from deeplab_jax.data.datasets import Example
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
    """Returns the image in randomly shifted colours.

    Args:
      image: uint8 [H, W, 3] RGB.
      random: draws four factors, whatever the strength.
      strength: multiplies all four ranges; 0 returns the image itself.
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


def size_in_range(
    size: tuple[int, int], shortest: int, longest: int, factor: int
) -> tuple[int, int]:
    """Returns the size after resizing to a range, as the released code does for ADE20K.

    The shorter side becomes `shortest`; where the longer one would exceed `longest`, it becomes
    that instead. The shape is kept but for rounding.

    Args:
      size: (height, width) in pixels.
      shortest: of the result's shorter side; 0: no wish.
      longest: the result's longer side is at most that; 0: any length.
      factor: sides, and the limits, are rounded up to k·factor + 1; 0: to whole pixels.

    Source: `resize_to_range` of tensorflow/models, research/deeplab.
    """
    if not shortest and not longest:
        return size
    limits = [_rounded_up(longest, factor) / max(size)] if longest else []
    wishes = [shortest / min(size)] if shortest else [1.0]
    scale = min(*wishes, *limits) if limits else wishes[0]
    height, width = (max(1, _rounded_up(int(side * scale + 1e-6), factor)) for side in size)
    return height, width


def _rounded_up(side: int, factor: int) -> int:
    return side + -(side - 1) % factor if factor else side


# How often a crop is drawn before one that a single class fills is taken nevertheless.
DRAWS = 10


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation of a training example, in this order: resize, scale, pad, crop, rotate, flip.

    Attributes:
      crop_size: (height, width) of the result.
      min_scale: least factor the image is resized by.
      max_scale: greatest factor.
      scale_step: distance between the factors that are drawn from, by default the released code's
        0.25; 0 draws any factor between the two.
      min_resize, max_resize, resize_factor: see `size_in_range`; 0 is off.
      max_class_fraction: crops are drawn again, `DRAWS` times at most, until no class fills this
        fraction of the pixels that are not void; 1 takes the first.
      flip: whether half the examples are mirrored left to right.
      rotation: greatest angle in degrees to either side about the crop's centre; 0 is off.
      photometric: strength of colour distortion, 1 as in `photometric`; 0 is off.
      fill: pixel outside of the source, a value for each channel; see `Architecture.mean_pixel`.
    """

    crop_size: tuple[int, int]
    min_scale: float = 0.5
    max_scale: float = 2.0
    scale_step: float = 0.25
    min_resize: int = 0
    max_resize: int = 0
    resize_factor: int = 0
    max_class_fraction: float = 1.0
    flip: bool = True
    rotation: float = 0.0
    photometric: float = 0.0
    fill: tuple[int, ...] = MEAN_PIXEL

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale:
            raise DeepLabError(
                f"min_scale {self.min_scale} and max_scale {self.max_scale}: "
                "give 0 < min_scale <= max_scale"
            )
        if min(self.crop_size) < 1:
            raise DeepLabError(f"crop_size {self.crop_size}: give a positive height and width")
        if min(self.min_resize, self.max_resize, self.resize_factor) < 0:
            raise DeepLabError("min_resize, max_resize and resize_factor must not be negative")
        if not 0 < self.max_class_fraction <= 1:
            raise DeepLabError(f"max_class_fraction {self.max_class_fraction} must be in (0, 1]")


def augment(
    example: Example,
    random: np.random.Generator,
    augmentation: Augmentation,
    num_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Draws one augmented crop.

    Args:
      example: of any size.
      random: all that the result depends on besides the example.
      augmentation: what to do.
      num_classes: of the data set; see `labels.void_of`.

    Returns:
      {"image": uint8 [h, w, 3], "label": [h, w], of its dtype} of the crop size; outside the source
      the image is the fill and the label void. Unscaled and unrotated crops are exact.
    """
    size = augmentation.crop_size
    scale = _random_scale(random, augmentation)
    height, width = example["label"].shape
    resized = size_in_range(
        (height, width),
        augmentation.min_resize,
        augmentation.max_resize,
        augmentation.resize_factor,
    )
    # One resampling for both: the sides' factors differ by what rounding adds.
    scales = (scale * (resized[0] / height), scale * (resized[1] / width))
    void = void_of(example["label"], num_classes)
    view, label = _drawn(example["label"], random, augmentation, scales, void)
    image = distort(example["image"], random, augmentation.photometric)
    sampling = IMAGE_SAMPLING._replace(outside=augmentation.fill)
    return {"image": render(image, view, size, sampling), "label": label}


def _drawn(
    label: np.ndarray,
    random: np.random.Generator,
    augmentation: Augmentation,
    scales: tuple[float, float],
    void: int,
) -> tuple[View, np.ndarray]:
    """Returns where a crop lies and its label."""
    size, sampling = augmentation.crop_size, label_sampling(void)
    for _ in range(DRAWS):
        view = random_view(
            random,
            label.shape,
            size,
            scale=scales,
            rotation=augmentation.rotation,
            flip=augmentation.flip,
        )
        crop = render(label, view, size, sampling)
        largest = augmentation.max_class_fraction
        if largest == 1 or _class_share(crop, void) < largest:
            break
    return view, crop


def _class_share(label: np.ndarray, void: int) -> float:
    """Returns the share of the most frequent class in what is not void; 1 where all is."""
    counts = np.bincount(label[label != void], minlength=1)
    return counts.max() / counts.sum() if counts.any() else 1.0


def _random_scale(random: np.random.Generator, augmentation: Augmentation) -> float:
    low, high, step = augmentation.min_scale, augmentation.max_scale, augmentation.scale_step
    if step == 0:
        return random.uniform(low, high)
    # The small number keeps 2.0 in 0.5, 0.75, … where rounding would lose it.
    return low + step * int(random.integers(int((high - low) / step + 1e-6) + 1))
