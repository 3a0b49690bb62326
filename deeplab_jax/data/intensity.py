"""Maps pixel values of more than 8 bits to 0..255."""

from collections.abc import Sequence

import cv2
import numpy as np

# Images of more than 8 bits are converted in blocks of this number of rows.
BLOCK_ROWS = 256
# Minimum number of successive levels, of 256, and minimum number of pixels for `gap_notes`.
WIDE_GAP, MIN_PIXELS = 128, 256
GAP = (
    "image of more than 8 bits uses less than half of the levels 0..255, perhaps because one of "
    "its values means missing data; give --intensity_range with the range of the other values"
)


def scaled_to_bytes(planes: Sequence[np.ndarray], limits: tuple[float, float]) -> np.ndarray:
    """Maps pixel values linearly to an RGB image; values outside the limits are clipped.

    Args:
      planes: one gray plane or three color planes, [H, W].
      limits: values that become 0 and 255.

    Returns:
      uint8 [H, W, 3].
    """
    low, high = limits
    result = np.empty((*planes[0].shape, 3), np.uint8)
    # Blocks limit the memory of the floating-point values.
    for first in range(0, len(result), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        scaled = [to_bytes(plane[rows].astype(np.float64), low, high) for plane in planes]
        result[rows] = np.stack(scaled, axis=-1)
    return result


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clips numbers to [low, high], and maps them linearly to uint8: `low` to 0, `high` to 255."""
    # NaN becomes the darkest value.
    within = np.clip(np.nan_to_num(values, nan=low), low, high)
    return np.rint((within - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)


def own_range(planes: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the smallest range (low, high) that contains 0 and all finite values of planes."""
    low = high = 0.0
    for plane in planes:
        for first in range(0, len(plane), BLOCK_ROWS):
            values = plane[first : first + BLOCK_ROWS]
            finite = values[np.isfinite(values)]
            low = min(low, float(finite.min(initial=0)))
            high = max(high, float(finite.max(initial=0)))
    return low, high


def gap_notes(image: np.ndarray) -> tuple[str, ...]:
    """Returns the remark `GAP` if no pixel has a value in a wide range between other values.

    A value that means missing data, such as -9999 among reflectances 0..1, causes such a gap. Very
    small images are not checked, because they have gaps by chance.

    Args:
      image: uint8 [H, W, C], scaled by its own range of values.
    """
    counts = sum(
        cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel()
        for channel in range(image.shape[2])
    )
    widest = np.diff(np.flatnonzero(counts)).max(initial=0)
    height, width = image.shape[:2]
    return (GAP,) * bool(widest > WIDE_GAP and height * width >= MIN_PIXELS)
