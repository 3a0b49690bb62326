"""Augmentation: a pure function of an example and a generator of random numbers."""

import dataclasses

import numpy as np

from deeplab_jax.data.datasets import Example
from deeplab_jax.data.photometric import distort
from deeplab_jax.data.views import IMAGE_SAMPLING, LABEL_SAMPLING, random_view, render
from deeplab_jax.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to an example, in this order: scale, pad, crop, rotate, flip.

    Attributes:
      crop_size: (height, width) of the result.
      min_scale: least factor the image is resized by.
      max_scale: greatest factor.
      scale_step: distance of the factors that are drawn from; 0 draws any between the two.
      flip: whether half the examples are mirrored left to right.
      rotation: greatest angle in degrees to either side about the crop's centre; 0 is off.
      photometric: strength of colour distortion, 1 as in `photometric`; 0 is off.
    """

    crop_size: tuple[int, int]
    min_scale: float = 0.5
    max_scale: float = 2.0
    scale_step: float = 0.0
    flip: bool = True
    rotation: float = 0.0
    photometric: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale:
            raise DeepLabError(
                f"min_scale {self.min_scale} and max_scale {self.max_scale}: "
                "give 0 < min_scale <= max_scale"
            )
        if min(self.crop_size) < 1:
            raise DeepLabError(f"crop_size {self.crop_size}: give a positive height and width")


def augment(
    example: Example, random: np.random.Generator, augmentation: Augmentation
) -> dict[str, np.ndarray]:
    """Draws one augmented crop.

    Args:
      example: of any size.
      random: all that the result depends on besides the example.
      augmentation: what to do.

    Returns:
      {"image": uint8 [h, w, 3], "label": uint8 [h, w]} of the crop size; outside the source the
      image is the mean pixel and the label void. Unscaled and unrotated crops are exact.
    """
    size = augmentation.crop_size
    view = random_view(
        random,
        example["label"].shape,
        size,
        scale=_random_scale(random, augmentation),
        rotation=augmentation.rotation,
        flip=augmentation.flip,
    )
    image = distort(example["image"], random, augmentation.photometric)
    return {
        "image": render(image, view, size, IMAGE_SAMPLING),
        "label": render(example["label"], view, size, LABEL_SAMPLING),
    }


def _random_scale(random: np.random.Generator, augmentation: Augmentation) -> float:
    low, high, step = augmentation.min_scale, augmentation.max_scale, augmentation.scale_step
    if step == 0:
        return random.uniform(low, high)
    # The small number keeps 2.0 in 0.5, 0.75, … where rounding would lose it.
    return low + step * int(random.integers(int((high - low) / step + 1e-6) + 1))
