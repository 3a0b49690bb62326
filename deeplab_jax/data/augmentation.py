"""Augmentation: a pure function of an example and a generator of random numbers."""

import dataclasses

import numpy as np

from deeplab_jax.data.datasets import Example
from deeplab_jax.data.padding import MEAN_PIXEL
from deeplab_jax.data.photometric import distort
from deeplab_jax.data.resizing import size_in_range
from deeplab_jax.data.views import IMAGE_SAMPLING, View, label_sampling, random_view, render
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of

# How often a crop is drawn before one that a single class fills is taken nevertheless.
DRAWS = 10


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to an example, in this order: resize, scale, pad, crop, rotate, flip.

    Attributes:
      crop_size: (height, width) of the result.
      min_scale: least factor the image is resized by.
      max_scale: greatest factor.
      scale_step: distance between the factors that are drawn from, by default the released code's
        0.25; 0 draws any factor between the two.
      min_resize, max_resize, resize_factor: see `size_in_range`; 0 is off.
      max_class_share: crops are drawn anew, `DRAWS` times at most, until no class fills this share
        of the pixels that are not void; 1 takes the first.
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
    max_class_share: float = 1.0
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
        if not 0 < self.max_class_share <= 1:
            raise DeepLabError(f"max_class_share {self.max_class_share} must be in (0, 1]")


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
        largest = augmentation.max_class_share
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
