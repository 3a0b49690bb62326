"""Class maps of a video: steady over time, and how much of each class there is."""

from collections.abc import Iterable, Iterator

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_label, void_of


def averaged_over_time(
    previous: np.ndarray | None, probabilities: np.ndarray, keep: float
) -> np.ndarray:
    """Returns keep·previous + (1 − keep)·probabilities, an exponential average.

    A pixel that changes from one certain class to another follows after the smallest number of
    frames n with keep^n < ½: 4 frames at 0.8, 2 at 0.6, 1 below ½.

    Args:
      previous: the average up to the frame before, or None at the first frame.
      probabilities: of this frame, floating point [H, W, num_classes].
      keep: 0..1: 0 takes each frame by itself.

    Returns:
      [H, W, num_classes]; each pixel's sum stays 1.

    Raises:
      DeepLabError: `keep` is out of range, or the frame is of another size.
    """
    if not 0 <= keep < 1:
        raise DeepLabError(f"keep={keep} must be in [0, 1)")
    if previous is None:
        return probabilities
    if previous.shape != probabilities.shape:
        sizes = f"{list(probabilities.shape)} after {list(previous.shape)}"
        raise DeepLabError(f"frames must be of one size; got probabilities {sizes}")
    return probabilities + keep * (previous - probabilities)


def stable_class_maps(
    frames: Iterable[np.ndarray], keep: float = 0.6, cut: float = 0.5
) -> Iterator[np.ndarray]:
    """Yields the class map of each frame by the exponential average of its probabilities.

    Args:
      frames: probabilities, floating point [H, W, num_classes] each.
      keep: of the average, see `averaged_over_time`.
      cut: share of the pixels, 0..1. When more of them than this differ from the average's class
        the scene has been cut, and the average starts anew; 1: never.

    Yields:
      int32 [H, W].

    Raises:
      DeepLabError: `keep` is out of range, or the frames differ in size.
    """
    average, shown = None, None
    for probabilities in frames:
        seen, num_classes = probabilities.argmax(axis=-1), probabilities.shape[-1]
        comparable = shown is not None and seen.shape == shown.shape
        if comparable and changed_share(seen, shown, num_classes) > cut:
            average = None
        average = averaged_over_time(average, probabilities, keep)
        shown = average.argmax(axis=-1).astype(np.int32)
        yield shown


def changed_share(
    class_map: np.ndarray, other: np.ndarray, num_classes: int | None = None
) -> float:
    """Returns the share of the pixels, 0..1, whose class differs between two class maps.

    Args:
      class_map, other: integers [H, W]; pixels that are void in either are left out.
      num_classes: of the model; needed above 255 classes, where void is 65535 and 255 a class.
        None: 65535 is void in uint16 maps, 255 in all others.
    """
    voids = [
        void_of(one) if num_classes is None else void_label(num_classes)
        for one in (class_map, other)
    ]
    known = (class_map != voids[0]) & (other != voids[1])
    return float(np.count_nonzero(known & (class_map != other)) / max(np.count_nonzero(known), 1))


def class_areas(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of pixels of each class, int64 [num_classes]; void has none.

    Args:
      class_map: integers [H, W]; void is 255, or 65535 with more than 255 classes.
      num_classes: of the model.
    """
    known = class_map[class_map != void_label(num_classes)]
    return np.bincount(known, minlength=num_classes)
