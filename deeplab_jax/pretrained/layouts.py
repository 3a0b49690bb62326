"""From the axes of other codes' kernels to ours, [rows, columns, in, out]."""

import numpy as np

LAYOUTS = ("tensorflow", "pytorch")


def to_our_layout(array: np.ndarray, layout: str, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns an array with its axes in our order; its shape may still not be the wanted one.

    Args:
      array: as in the file.
      layout: `tensorflow`: [rows, columns, in, out], depthwise [rows, columns, channels, 1];
        `pytorch`: [out, in, rows, columns], or [out, in · rows · columns] of a linear layer.
      wanted: shape of ours; a depthwise kernel is [rows, columns, 1, channels].
    """
    if len(wanted) != 4:
        return array
    if layout == "pytorch":
        if array.ndim == 2:
            array = _unflattened(array, wanted)
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if array.ndim == 4 and array.shape[3] == 1 and wanted[2] == 1:
        return array.transpose(0, 1, 3, 2)
    return array


def _unflattened(array: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """Returns a linear layer [out, in · rows · columns] as a convolution's kernel, if it fits."""
    rows, columns = wanted[:2]
    if array.shape[1] % (rows * columns):
        return array
    return array.reshape(array.shape[0], -1, rows, columns)
