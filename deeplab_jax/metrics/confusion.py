"""Confusion matrix, and the metrics computed from it: IoU, accuracy and Dice."""

import dataclasses

import numpy as np

from deeplab_jax.arrays import Float, Integer
from deeplab_jax.labels import void_label


@dataclasses.dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Number of pixels for each pair of true and predicted class, without void pixels.

    The matrices of all images, batches and hosts are summed to the matrix of a dataset split. All
    metrics are computed from this sum; they are not means over images.

    Attributes:
      counts: int64 [num_classes, num_classes], truth in rows, prediction in columns. An optional
        additional column counts pixels for which no class is predicted. Such a pixel is a false
        negative of its true class, and not a false positive of any class.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> "ConfusionMatrix":
        """Returns a `ConfusionMatrix` in which all counts are zero."""
        return cls(np.zeros((num_classes, num_classes), np.int64))

    @classmethod
    def from_labels(
        cls,
        truth: Integer[np.ndarray, "..."],
        prediction: Integer[np.ndarray, "..."],
        num_classes: int,
    ) -> "ConfusionMatrix":
        """Returns the confusion matrix of a true and a predicted class map.

        Args:
          truth: integers 0..num_classes − 1, or `labels.void_label(num_classes)` for void (255, or
            65535 for more than 255 classes).
          prediction: integers 0..num_classes − 1, of the same shape.
          num_classes: number of classes.

        Raises:
          ValueError: the shapes differ, or a value of a class map is illegal.
        """
        if truth.shape != prediction.shape:
            raise ValueError(
                f"truth and prediction must have the same shape, got {truth.shape} and "
                f"{prediction.shape}"
            )
        if prediction.size and not 0 <= prediction.min() <= prediction.max() < num_classes:
            raise ValueError(f"all values of prediction must be in 0..{num_classes - 1}")
        void = void_label(num_classes)
        illegal = f"all values of truth must be in 0..{num_classes - 1}, or {void} for void pixels"
        if truth.size and truth.min() < 0:
            raise ValueError(illegal)
        # Void pixels are counted in bin 0. With int32 indices this is seven times as fast as
        # selecting the valid pixels first.
        index = np.int32 if (void + 1) * num_classes < 2**31 else np.int64
        cell = truth.astype(index) * num_classes + prediction.astype(index) + 1
        counts = np.bincount(np.where(truth == void, 0, cell).ravel(), minlength=num_classes**2 + 1)
        if len(counts) > num_classes**2 + 1:
            raise ValueError(illegal)
        return cls(counts[1:].reshape(num_classes, num_classes))

    def merge(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Returns the sum of this matrix and another."""
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def num_pixels(self) -> int:
        """Number of pixels that are not void."""
        return int(self.counts.sum())

    @property
    def per_class_iou(self) -> Float[np.ndarray, " C"]:
        """Intersection over union per class, TP / (TP + FP + FN).

        float64 [num_classes]; NaN for classes that are absent from both truth and prediction.
        """
        return _ratio(self._correct, self._union)

    @property
    def per_class_accuracy(self) -> Float[np.ndarray, " C"]:
        """Recall per class, TP / (TP + FN).

        float64 [num_classes]; NaN for classes that are absent from the truth.
        """
        return _ratio(self._correct, self._true)

    @property
    def per_class_dice(self) -> Float[np.ndarray, " C"]:
        """Dice coefficient (F1 score) per class, 2·TP / (2·TP + FP + FN).

        float64 [num_classes]; NaN for classes that are absent from both truth and prediction.
        """
        return _ratio(2 * self._correct, self._true + self._predicted)

    @property
    def mean_iou(self) -> float:
        """Mean of `per_class_iou` over the classes in truth or prediction; NaN if none exist."""
        return _mean(self.per_class_iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `per_class_accuracy` over the classes in the truth."""
        return _mean(self.per_class_accuracy)

    @property
    def mean_dice(self) -> float:
        """Mean of `per_class_dice` over the classes in truth or prediction."""
        return _mean(self.per_class_dice)

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of pixels whose class is predicted correctly."""
        return float(_ratio(self._correct.sum(), self.counts.sum()))

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean IoU weighted by the frequency of the classes in the truth."""
        weighted = self._true * np.nan_to_num(self.per_class_iou)
        return float(_ratio(weighted.sum(), self.counts.sum()))

    @property
    def _correct(self) -> np.ndarray:
        return np.diagonal(self.counts)

    @property
    def _true(self) -> np.ndarray:
        return self.counts.sum(axis=1)

    @property
    def _predicted(self) -> np.ndarray:
        return self.counts.sum(axis=0)[: len(self.counts)]

    @property
    def _union(self) -> np.ndarray:
        return self._true + self._predicted - self._correct


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator, with NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def _mean(values: Float[np.ndarray, " C"]) -> float:
    """Returns the mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
