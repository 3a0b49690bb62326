"""Colour distortion of uint8 images by look-up tables.

Strength 1 is the distortion of SSD (arXiv:1512.02325) that the field's segmentation recipes took
over: brightness ±32, contrast and saturation 0.5–1.5, hue ±18 degrees.
"""

import cv2
import numpy as np

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
