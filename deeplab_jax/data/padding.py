"""Padding at the bottom and right, so that pixels keep their place."""

from collections.abc import Sequence

import numpy as np

from deeplab_jax.data.datasets import Example
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_of

# Mean of the pixels -1..1, which most networks take; `Architecture.mean_pixel` has each network's.
MEAN_PIXEL = (127, 127, 127)


def pad(image: np.ndarray, size: tuple[int, int], value: int | Sequence[int]) -> np.ndarray:
    """Returns an image or label padded at the bottom and right.

    Args:
      image: [H, W] or [H, W, C].
      size: (height, width) of the result.
      value: of the new pixels; one number, or one for each channel.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    padded = np.full((*size, *image.shape[2:]), value, image.dtype)
    padded[:height, :width] = image
    return padded


def pad_to(
    example: Example,
    size: tuple[int, int],
    fill: Sequence[int],
    num_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Pads an example at the bottom and right.

    Args:
      example: of any size.
      size: (h, w) of the result.
      fill: pixel that the image is padded with, a value for each channel; the label's is void.
      num_classes: of the data set; see `labels.void_of`.

    Returns:
      {"image": uint8 [h, w, 3], "label": [h, w]} of the size (h, w); the label keeps its dtype.

    Raises:
      DeepLabError: the example is larger, or its label's dtype cannot hold void.
    """
    height, width = example["label"].shape
    if height > size[0] or width > size[1]:
        raise DeepLabError(
            f"{example['image_id']} is {height}x{width}, larger than the evaluation size "
            f"{size[0]}x{size[1]}; give a size of at least that"
        )
    return {
        "image": pad(example["image"], size, fill),
        "label": pad(example["label"], size, void_of(example["label"], num_classes)),
    }
