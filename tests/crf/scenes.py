"""Images and class scores for tests of the CRF."""

import cv2
import numpy as np
import pytest

from deeplab_jax.crf import PARAMETERS

# Each set has lattices of its own sizes, and programs that are compiled for them.
QUICK = ("deeplab",)
SETS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PARAMETERS]


def textured_image(seed: int, height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: a few flat regions with shading and grain."""
    random = np.random.default_rng(seed)
    field = cv2.GaussianBlur(random.normal(size=(height, width, 5)), (0, 0), 5)
    region = field.argmax(axis=-1)
    color = random.integers(30, 226, (5, 3))[region].astype(float)
    color += cv2.GaussianBlur(random.normal(size=(height, width, 3)), (0, 0), 4) * 80
    color += random.normal(size=color.shape) * 3
    return color.clip(0, 255).astype(np.uint8)


def image_crop(path, seed: int, height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3] from somewhere in an image file."""
    if not path.is_file():
        pytest.skip(f"no {path.name} among the real images")
    image = cv2.imread(str(path))[..., ::-1]
    random = np.random.default_rng(seed)
    top = random.integers(image.shape[0] - height + 1)
    left = random.integers(image.shape[1] - width + 1)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def widest_choice(probabilities: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Returns the rows and columns of the window with the highest entropy."""
    entropy = -np.sum(probabilities * np.log(probabilities + 1e-300), axis=-1)
    sums = np.lib.stride_tricks.sliding_window_view(entropy, (height, width)).sum((2, 3))
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return slice(top, top + height), slice(left, left + width)


def random_logits(seed: int, height: int, width: int, classes: int) -> np.ndarray:
    """Returns float32 [height, width, classes]: blobs of classes, with noise."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=(height, width, classes)), (0, 0), 4)
    noise = random.normal(size=blobs.shape)
    return (1.2 * blobs.reshape(height, width, classes) / blobs.std() + 0.8 * noise).astype(
        np.float32
    )


def mean_entropy(probabilities: np.ndarray) -> float:
    """Returns the mean entropy of the class probabilities of a pixel, in nats."""
    return float(-np.sum(probabilities * np.log(probabilities + 1e-300), axis=-1).mean())


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the fraction of pixels with the same most probable class."""
    return float((np.argmax(first, -1) == np.argmax(second, -1)).mean())
