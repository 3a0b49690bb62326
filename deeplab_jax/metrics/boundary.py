"""Metrics near object boundaries: boundary F-score, and mean IoU within a trimap."""

import dataclasses
import numbers
from collections.abc import Sequence

import cv2
import numpy as np

from deeplab_jax.arrays import Bool, Float, Integer
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.metrics.confusion import ConfusionMatrix

MAX_WIDTH = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class TrimapConfusion:
    """Confusion matrices of the pixels near object boundaries, for bands of several widths.

    In PASCAL VOC, void pixels outline the objects. The band of width w contains the void pixels
    dilated by a square of (2w + 1) × (2w + 1) pixels, without the void pixels themselves.

    Attributes:
      widths: widths w of the bands in pixels, ascending.
      counts: int64 [number of widths, num_classes, num_classes], one confusion matrix for each
        band: true class in rows, predicted class in columns.

    Source: DeepLab v1, section 5, as in the released evaluation code.
    """

    widths: tuple[int, ...]
    counts: np.ndarray

    @classmethod
    def empty(cls, num_classes: int, widths: Sequence[int]) -> "TrimapConfusion":
        """Returns a `TrimapConfusion` in which all counts are zero.

        Raises:
          DeepLabError: a width is not an integer in 1..1000.
        """
        for width in widths:
            if not (isinstance(width, numbers.Integral) and 1 <= width <= MAX_WIDTH):
                raise DeepLabError(f"trimap width {width!r} must be an integer in 1..{MAX_WIDTH}")
        widths = tuple(sorted(set(map(int, widths))))
        return cls(widths, np.zeros((len(widths), num_classes, num_classes), np.int64))

    def add(
        self, truth: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"]
    ) -> "TrimapConfusion":
        """Returns the sum of these matrices and those of one image.

        Args:
          truth: integers [H, W], 0..num_classes − 1, or `labels.void_label(num_classes)` for void.
          prediction: integers [H, W], 0..num_classes − 1.
        """
        if not self.widths:
            return self
        num_classes = self.counts.shape[1]
        void = label_dtype(num_classes).type(void_label(num_classes))
        # Dilation by a square is a threshold on the chessboard distance: one map for all widths.
        solid = np.where(truth == void, 0, 1).astype(np.uint8)
        distance = cv2.distanceTransform(solid, cv2.DIST_C, 3) if not solid.all() else np.inf
        counts = []
        for width in self.widths:
            label = np.where(distance <= width, truth, void)
            counts.append(ConfusionMatrix.from_labels(label, prediction, num_classes))
        return self.merge(TrimapConfusion(self.widths, np.stack([one.counts for one in counts])))

    def merge(self, other: "TrimapConfusion") -> "TrimapConfusion":
        """Returns the sum of these matrices and those of other images, with the same widths."""
        return TrimapConfusion(self.widths, self.counts + other.counts)

    @property
    def mean_iou(self) -> dict[int, float]:
        """Mean IoU in each band around object boundaries, by width of the band in pixels.

        The mean IoU of a band without pixels is NaN.
        """
        return {
            width: ConfusionMatrix(counts).mean_iou
            for width, counts in zip(self.widths, self.counts, strict=True)
        }


# Maximum distance of matching pixels, as a fraction of the image diagonal (Csurka et al., "What is
# a good evaluation measure for semantic segmentation?", BMVC 2013).
TOLERANCE = 0.0075


@dataclasses.dataclass(frozen=True, eq=False)
class BoundaryMatch:
    """Counts per class from which the boundary F-score is computed.

    A pixel is on the boundary of its class if one of its four neighbors inside the image has a
    different label (which may be void). Pixels that are void in the truth are first set to void in
    the prediction. A predicted and a true boundary pixel of the same class match if their distance
    is at most 0.75 % of the image diagonal.

    Attributes:
      counts: int64 [num_classes, 4]: number of predicted boundary pixels, number of predicted
        boundary pixels that match, number of true boundary pixels, and number of true boundary
        pixels that match.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> "BoundaryMatch":
        """Returns a `BoundaryMatch` in which all counts are zero."""
        return cls(np.zeros((num_classes, 4), np.int64))

    @classmethod
    def from_labels(
        cls,
        truth: Integer[np.ndarray, "H W"],
        prediction: Integer[np.ndarray, "H W"],
        num_classes: int,
    ) -> "BoundaryMatch":
        """Returns the counts of one image at its original size.

        Args:
          truth: integers [H, W], 0..num_classes − 1, or `labels.void_label(num_classes)` for void.
          prediction: integers [H, W], 0..num_classes − 1.
          num_classes: number of classes.
        """
        void = label_dtype(num_classes).type(void_label(num_classes))
        prediction = np.where(truth == void, void, prediction)
        radius = TOLERANCE * np.hypot(*truth.shape)
        true, predicted = _outline(truth, void), _outline(prediction, void)
        columns = [*_meetings(predicted, true, radius), *_meetings(true, predicted, radius)]
        return cls(
            np.stack([np.bincount(column, minlength=num_classes) for column in columns], axis=1)
        )

    def merge(self, other: "BoundaryMatch") -> "BoundaryMatch":
        """Returns the sum of these counts and those of other images."""
        return BoundaryMatch(self.counts + other.counts)

    @property
    def per_class_f_score(self) -> Float[np.ndarray, " C"]:
        """F-score 2·P·R / (P + R) per class.

        P is the fraction of predicted boundary pixels that match a true one, and R the fraction of
        true boundary pixels that match a predicted one. float64 [num_classes]; NaN for classes that
        have a boundary in neither truth nor prediction.
        """
        predicted, predicted_met, true, true_met = self.counts.T
        precision = predicted_met / np.maximum(predicted, 1)
        recall = true_met / np.maximum(true, 1)
        score = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return np.where(predicted + true > 0, score, np.nan)

    @property
    def f_score(self) -> float:
        """Mean of `per_class_f_score` over the classes with a boundary; NaN if there are none."""
        known = self.per_class_f_score[~np.isnan(self.per_class_f_score)]
        return float(known.mean()) if known.size else float("nan")


def _outline(labels: Integer[np.ndarray, "H W"], void: np.integer) -> Integer[np.ndarray, "H W"]:
    """Returns the class of each boundary pixel, and −1 at all other pixels; int32 [H, W].

    Args:
      labels: class or void label of each pixel.
      void: label of void pixels, which are not on a boundary.
    """
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return np.where(edge & (labels != void), labels.astype(np.int32), -1)


# Class, row and column of each of several positions, three int64 arrays.
Positions = tuple[np.ndarray, np.ndarray, np.ndarray]


def _meetings(
    outline: Integer[np.ndarray, "H W"], other: Integer[np.ndarray, "H W"], radius: float
) -> tuple[np.ndarray, ...]:
    """Returns the classes of all and of the matching boundary pixels of `outline`.

    A boundary pixel of `outline` matches if `other` has a boundary pixel of the same class at a
    distance of at most `radius`.

    Args:
      outline, other: class of each boundary pixel, −1 elsewhere; results of `_outline`.
      radius: maximum distance of matching pixels, in pixels.

    Returns:
      Two arrays: the classes of all boundary pixels of `outline`, and the classes of those boundary
      pixels of `outline` that match.
    """
    own, others = _positions(outline), _positions(other)
    axis = np.arange(int(radius) + 1)
    disc = (np.hypot.outer(axis, axis) <= radius).sum(axis=1) - 1
    # Pixels match only within the same or adjacent squares of this side. This excludes most of the
    # pixels without a match, for which the search would try every row of the disc.
    side = len(axis)
    near = _found(_squares(own, side), _squares(others, side), (1, 1), outline.shape)
    classes, rows, columns = (array[near] for array in own)
    return own[0], classes[_found((classes, rows, columns), others, disc, outline.shape)]


def _positions(outline: Integer[np.ndarray, "H W"]) -> Positions:
    """Returns the positions of all boundary pixels, sorted by class, row and column."""
    flat = np.flatnonzero(outline >= 0)
    classes = outline.ravel()[flat]
    order = np.argsort(classes.astype(np.uint16), kind="stable")
    rows, columns = np.divmod(flat[order], outline.shape[1])
    return classes[order].astype(np.int64), rows, columns


def _squares(pixels: Positions, side: int) -> Positions:
    """Converts positions of pixels to positions in a grid of squares of `side` × `side` pixels.

    The class, row and column of the square that contains a pixel are returned for each pixel.
    """
    classes, rows, columns = pixels
    return classes, rows // side, columns // side


def _found(
    own: Positions, others: Positions, halves: Sequence[int], size: tuple[int, ...]
) -> Bool[np.ndarray, " n"]:
    """Returns whether the neighborhood of each position of `own` contains a position of `others`.

    Args:
      own, others: positions with their classes. Only positions of the same class are neighbors.
      halves: shape of the neighborhood. `halves[k]` is the largest distance in columns, for
        positions whose distance in rows is k. Distances in rows of at least `len(halves)` are
        outside the neighborhood.
      size: (H, W), larger than the row and column of every position.
    """
    # Numbers of positions ascend by class, row and column. With margins around each class, the
    # numbers of the neighbors in one row are successive and do not include other rows or classes.
    height, width = (length + 2 * max(len(halves), *halves) for length in size)
    numbers, sought = ((one[0] * height + one[1]) * width + one[2] for one in (own, others))
    sought = np.append(np.sort(sought), np.iinfo(np.int64).max)
    found, waiting = np.zeros(len(numbers), bool), np.arange(len(numbers))
    for row in sorted(range(1 - len(halves), len(halves)), key=abs):
        first = numbers[waiting] + row * width - halves[abs(row)]
        here = sought[np.searchsorted(sought, first)] <= first + 2 * halves[abs(row)]
        found[waiting[here]] = True
        waiting = waiting[~here]
    return found
