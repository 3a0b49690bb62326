"""Check of class names; dtype and void value of label maps for a number of classes.

Void pixels have no class; losses and metrics ignore them. With up to 255 classes, labels are uint8
and void is 255, as in PASCAL VOC. With more classes, labels are uint16 and void is 65535.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    import jax

# Void value of 8-bit labels, and also the maximum number of classes with 8-bit labels.
VOID_LABEL = 255
# Maximum number of classes, and void value of 16-bit labels.
MAX_CLASSES = 65535
# Masks of two classes whose only values are 0 and 255 are binary: 255 is class 1, and no pixel is
# void.
BINARY_FOREGROUND = 255
BINARY_VALUES = frozenset((0, BINARY_FOREGROUND))
# Color of void pixels in pictures, RGB.
VOID_COLOR = (224, 224, 224)


def check_class_names(class_names: Sequence[str], origin: object) -> None:
    """Checks that there are at least two classes, and that all have different names.

    Raises:
      DeepLabError: there are fewer than two, or a name occurs twice. The message begins with
        `origin`.
    """
    if len(class_names) < 2:
        classes = f"only the class {class_names[0]!r}" if class_names else "no class"
        raise DeepLabError(
            f"{origin}: {classes}; give at least two classes, because a network with one class "
            "learns nothing. Name the background as well, for example 'background' as class 0 and "
            "the object as class 1 (--classes of prepare, data.class_names of a config, "
            "class_names in Python)"
        )
    if len(set(class_names)) < len(class_names):
        ((twice, _),) = Counter(class_names).most_common(1)
        raise DeepLabError(
            f"{origin}: the class name {twice!r} occurs twice; give each class a different name"
        )


def label_dtype(num_classes: int) -> np.dtype:
    """Returns the dtype of labels and class maps: uint8 up to 255 classes, else uint16.

    Raises:
      DeepLabError: there are more than 65535 classes (MAX_CLASSES).
    """
    if num_classes > MAX_CLASSES:
        raise DeepLabError(f"num_classes={num_classes} must be at most {MAX_CLASSES}")
    return np.dtype(np.uint8 if num_classes <= VOID_LABEL else np.uint16)


def void_label(num_classes: int) -> int:
    """Returns the label of void pixels: 255 for up to 255 classes, 65535 above.

    Raises:
      DeepLabError: there are more than 65535 classes (MAX_CLASSES).
    """
    return int(np.iinfo(label_dtype(num_classes)).max)


def void_of(labels: "np.ndarray | jax.Array", num_classes: int | None = None) -> int:
    """Returns the void value of an array of labels.

    Args:
      labels: array with an integer dtype.
      num_classes: number of classes, which determines the void value; None: the dtype determines
        it, 65535 for uint16 and 255 otherwise.

    Raises:
      DeepLabError: the dtype of the labels cannot represent the void value for `num_classes`.
    """
    if num_classes is None:
        return MAX_CLASSES if labels.dtype == np.uint16 else VOID_LABEL
    void = void_label(num_classes)
    if np.issubdtype(labels.dtype, np.integer) and np.iinfo(labels.dtype).max < void:
        raise DeepLabError(
            f"labels of {num_classes} classes must be {label_dtype(num_classes)} or wider, because "
            f"void is {void}; got {labels.dtype}"
        )
    return void
