"""Labels at the size of the logits, as DeepLab v1 and v2 train."""

import jax
import numpy as np


def shrink_labels(label: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns the label at another size: every pixel takes the nearest one, corners on corners.

    Sides of 8k+1 shrunk to k+1 keep exactly every 8th pixel.

    Args:
      label: [N, H, W], or [N, H, W, C] where it is soft.
      size: (h, w) in pixels, that of the logits.

    Returns:
      [N, h, w] or [N, h, w, C], in the label's dtype.

    Source: the released code of v1 and v2; DeepLab v3, section 4.1, on what it costs.
    """
    rows, columns = (
        nearest_positions(source, target)
        for source, target in zip(label.shape[1:3], size, strict=True)
    )
    return label[:, rows][:, :, columns]


def nearest_positions(source: int, target: int) -> np.ndarray:
    """Returns t·(source − 1)/(target − 1) of each t below `target`, halves rounded up."""
    intervals = max(target - 1, 1)
    index = np.arange(target)
    return (2 * index * (source - 1) + intervals) // (2 * intervals)
