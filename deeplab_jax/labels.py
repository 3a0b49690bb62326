"""Dtype and void value of labels, which follow from the number of classes alone.

Void pixels have no class and take no part in losses and metrics. Up to 255 classes a label is uint8
and void is 255, VOC's own value. Above, a label is uint16 and void is 65535.
"""

from typing import TYPE_CHECKING

import numpy as np

from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    import jax

# Void of 8-bit labels; also the largest number of classes that they hold.
VOID_LABEL = 255
# Number of classes that 16-bit labels hold beside their void.
MAX_CLASSES = 65535
# In masks of two classes that hold exactly these values, 255 is class 1 and nothing is void.
BINARY_FOREGROUND = 255
BINARY_VALUES = frozenset((0, BINARY_FOREGROUND))
# Void in pictures, RGB.
VOID_COLOR = (224, 224, 224)


def label_dtype(num_classes: int) -> np.dtype:
    """Returns the dtype of labels and class maps: uint8 up to 255 classes, else uint16.

    Raises:
      DeepLabError: there are more classes than 16 bits hold.
    """
    if num_classes > MAX_CLASSES:
        raise DeepLabError(f"{num_classes} classes: labels hold at most {MAX_CLASSES}")
    return np.dtype(np.uint8 if num_classes <= VOID_LABEL else np.uint16)


def void_label(num_classes: int) -> int:
    """Returns the label of void pixels: 255 for up to 255 classes, 65535 above.

    Raises:
      DeepLabError: there are more classes than 16 bits hold.
    """
    return int(np.iinfo(label_dtype(num_classes)).max)


def void_of(labels: "np.ndarray | jax.Array", num_classes: int | None = None) -> int:
    """Returns the void value of an array of labels.

    Args:
      labels: anything with an integer dtype.
      num_classes: number of classes, which decides; None: the dtype decides, as it does for labels
        of the data pipeline: 65535 for uint16, else 255.

    Raises:
      DeepLabError: the dtype cannot hold the void value, so that the array may mean void by a
        value that is a class.
    """
    if num_classes is None:
        return MAX_CLASSES if labels.dtype == np.uint16 else VOID_LABEL
    void = void_label(num_classes)
    if np.issubdtype(labels.dtype, np.integer) and np.iinfo(labels.dtype).max < void:
        raise DeepLabError(
            f"labels of {num_classes} classes are {label_dtype(num_classes)} or wider, with {void} "
            f"for void; got {labels.dtype}, which cannot hold it"
        )
    return void
