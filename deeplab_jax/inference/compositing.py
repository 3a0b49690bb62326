"""A new background behind what a network found: soft masks and how they are laid over it."""

from collections.abc import Collection

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError


def soft_mask(probabilities: np.ndarray, classes: Collection[int]) -> np.ndarray:
    """Returns how probable it is that each pixel is one of the classes.

    Args:
      probabilities: floating point [H, W, num_classes], as `Prediction.probabilities`.
      classes: those of the foreground.

    Returns:
      float32 [H, W], 0..1.

    Raises:
      DeepLabError: there is no such class.
    """
    num_classes = probabilities.shape[-1]
    chosen = sorted(set(classes))
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_classes:
        raise DeepLabError(f"classes {chosen} must be some of 0..{num_classes - 1}")
    total = probabilities[..., chosen].sum(axis=-1, dtype=np.float32)
    return np.clip(total, 0, 1)


def feathered(mask: np.ndarray, width: float) -> np.ndarray:
    """Returns a mask whose edges run out smoothly, for use as opacity.

    A straight edge becomes the normal distribution's integral: ½ at the edge, 16 % at `width`
    pixels outside of it. Past the image's border the mask goes on as it ends.

    Args:
      mask: [H, W], booleans or 0..1.
      width: standard deviation of the blur in pixels; 0: none.

    Returns:
      float32 [H, W], 0..1.

    Raises:
      DeepLabError: the width is negative.
    """
    if width < 0:
        raise DeepLabError(f"width={width} of the feathering must not be negative")
    alpha = np.asarray(mask, np.float32)
    if width:
        # OpenCV takes a kernel of 0×0 as one that suits the width.
        alpha = cv2.GaussianBlur(alpha, (0, 0), width, borderType=cv2.BORDER_REPLICATE)
    return np.clip(alpha, 0, 1)


def composite(image: np.ndarray, background: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns alpha·image + (1 − alpha)·background.

    Args:
      image: uint8 [H, W, 3].
      background: uint8 [H, W, 3], or one colour [3].
      alpha: opacity of the image, [H, W], 0..1.

    Returns:
      uint8 [H, W, 3], rounded.

    Raises:
      DeepLabError: the sizes differ.
    """
    background = np.asarray(background)
    if alpha.shape != image.shape[:2] or background.shape not in (image.shape, (3,)):
        sizes = f"image {list(image.shape)}, background {list(background.shape)}"
        raise DeepLabError(f"sizes differ: {sizes}, alpha {list(alpha.shape)}")
    opacity = np.asarray(alpha, np.float32)[..., None]
    mixed = opacity * image + (1 - opacity) * background.astype(np.float32)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
