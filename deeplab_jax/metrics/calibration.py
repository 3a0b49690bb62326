"""Calibration of class probabilities: ECE, reliability diagram, Brier score, log-likelihood."""

import dataclasses

import numpy as np

from deeplab_jax.arrays import Float, Integer
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import void_label

# Number of bins of Guo et al., "On Calibration of Modern Neural Networks", 2017.
DEFAULT_BINS, MAX_BINS = 15, 1000
# Smaller probabilities of the true class count as this value in the negative log-likelihood.
LEAST_PROBABILITY = 1e-30


@dataclasses.dataclass(frozen=True, eq=False)
class CalibrationCounts:
    """Sums over valid pixels from which calibration metrics are computed.

    There are C classes. A probability falls into one of B bins: (0, 1/B], (1/B, 2/B], …; 0 is in
    the first bin. Arrays [C + 1, B] contain one sum per bin. In row c < C, pixels are in the bin
    of their probability of class c. In row C, they are in the bin of their confidence, which is the
    probability of the predicted class.

    Attributes:
      pixels: int64 [C + 1, B], number of pixels in each bin.
      positives: int64 [C + 1, B]. Row c < C: number of pixels in each bin whose true class is c.
        Row C: number of pixels in each bin whose predicted class is correct.
      probability: float64 [C + 1, B], sum of the probabilities in each bin.
      squared_error: float64 [1], sum over pixels and classes of (probability − truth)², where the
        truth is 1 for the true class and 0 for the others.
      log_loss: float64 [1], sum over pixels of −ln(probability of the true class).
    """

    pixels: np.ndarray
    positives: np.ndarray
    probability: np.ndarray
    squared_error: np.ndarray
    log_loss: np.ndarray

    @classmethod
    def empty(cls, num_classes: int, num_bins: int = DEFAULT_BINS) -> "CalibrationCounts":
        """Returns sums that are all 0.

        Raises:
          DeepLabError: the number of bins is not an integer in 1..1000.
        """
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 1:
            raise DeepLabError(f"calibration_bins={num_bins!r} must be a whole number above 0")
        if num_bins > MAX_BINS:
            raise DeepLabError(f"calibration_bins={num_bins} must be at most {MAX_BINS}")
        pixels, positives = np.zeros((2, num_classes + 1, num_bins), np.int64)
        return cls(pixels, positives, np.zeros(pixels.shape), np.zeros(1), np.zeros(1))

    def add(
        self,
        truth: Integer[np.ndarray, "H W"],
        prediction: Integer[np.ndarray, "H W"],
        probabilities: Float[np.ndarray, "H W C"],
    ) -> "CalibrationCounts":
        """Returns these sums plus the sums of one image.

        Probabilities are processed one class at a time, in float64.

        Args:
          truth: classes 0..C − 1, or `labels.void_label(C)` for void pixels, which are ignored.
          prediction: classes 0..C − 1.
          probabilities: 0..1.
        """
        num_classes, num_bins = len(self.pixels) - 1, self.pixels.shape[1]
        valid = truth != void_label(num_classes)
        truth, prediction = truth[valid], prediction[valid]
        of_truth, of_prediction = np.zeros((2, len(truth)))
        rows, squares = [], 0.0
        for index in range(num_classes):
            probability = probabilities[..., index][valid].astype(np.float64)
            own = truth == index
            of_truth[own] = probability[own]
            chosen = prediction == index
            of_prediction[chosen] = probability[chosen]
            rows.append(_histograms(probability, own, num_bins))
            squares += float(((probability - own) ** 2).sum())
        rows.append(_histograms(of_prediction, truth == prediction, num_bins))
        pixels, positives, probability = map(np.stack, zip(*rows, strict=True))
        log_loss = -np.log(np.maximum(of_truth, LEAST_PROBABILITY)).sum()
        added = (pixels, positives, probability, np.array([squares]), np.array([log_loss]))
        return self.merge(CalibrationCounts(*added))

    def merge(self, other: "CalibrationCounts") -> "CalibrationCounts":
        """Returns these sums plus the sums of other images."""
        names = [field.name for field in dataclasses.fields(self)]
        return CalibrationCounts(*(getattr(self, name) + getattr(other, name) for name in names))

    def without_last(self) -> "CalibrationCounts":
        """Returns the sums without the row of the last class, row C − 1.

        Evaluation with `--classes` or `--class_map` adds this class for predictions that belong to
        none of the scored classes. The class is never the true class of a pixel. All other sums are
        unchanged.
        """
        rows = np.delete(np.arange(len(self.pixels)), -2)
        kept = (self.pixels[rows], self.positives[rows], self.probability[rows])
        return CalibrationCounts(*kept, self.squared_error, self.log_loss)

    @property
    def expected_calibration_error(self) -> float:
        """Mean over bins of |accuracy − mean confidence|, weighted by the number of pixels per bin.

        NaN if there are no pixels.

        Source: Guo et al., "On calibration of modern neural networks", 2017, equation 3.
        """
        return float(self._errors[-1])

    @property
    def per_class_calibration_error(self) -> Float[np.ndarray, " C"]:
        """For each class: mean over bins of |frequency − mean probability|, float64 [C].

        The frequency is the fraction of the pixels in a bin that belong to the class. Bins are
        weighted by their number of pixels. NaN if there are no pixels.
        """
        return self._errors[:-1]

    @property
    def classwise_calibration_error(self) -> float:
        """Mean of `per_class_calibration_error` over all classes.

        Source: Kull et al., "Beyond temperature scaling", 2019, section 2.
        """
        return float(self._errors[:-1].mean())

    @property
    def brier_score(self) -> float:
        """Mean over pixels of the squared error, summed over classes: 0 (best) to 2."""
        return self._per_pixel(self.squared_error)

    @property
    def negative_log_likelihood(self) -> float:
        """Mean over pixels of −ln(probability of the true class), in nats."""
        return self._per_pixel(self.log_loss)

    @property
    def reliability(self) -> list[dict[str, float | int | None]]:
        """Reliability diagram: a dict for each bin of the confidence, with these keys.

        * `from`, `to`: edges of the bin.
        * `pixels`: number of pixels in the bin.
        * `confidence`: mean confidence of these pixels; None if the bin is empty.
        * `accuracy`: fraction of these pixels whose predicted class is correct; None if the bin is
          empty.
        """
        num_bins = self.pixels.shape[1]
        rows = []
        for index in range(num_bins):
            pixels = int(self.pixels[-1, index])
            rows.append(
                {
                    "from": index / num_bins,
                    "to": (index + 1) / num_bins,
                    "pixels": pixels,
                    "confidence": self.probability[-1, index] / pixels if pixels else None,
                    "accuracy": self.positives[-1, index] / pixels if pixels else None,
                }
            )
        return rows

    @property
    def _errors(self) -> np.ndarray:
        """Calibration error of each class and of the confidence, float64 [C + 1]."""
        total = self.pixels.sum(axis=1)
        gaps = np.abs(self.positives - self.probability).sum(axis=1)
        return np.where(total > 0, gaps / np.maximum(total, 1), np.nan)

    def _per_pixel(self, total: np.ndarray) -> float:
        pixels = self.pixels[-1].sum()
        return float(total[0] / pixels) if pixels else float("nan")


def _histograms(
    probability: np.ndarray, positive: np.ndarray, num_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts pixels into bins of equal width by probability, and sums over each bin.

    Args:
      probability: float64 [n], a probability for each pixel.
      positive: bool [n], whether the predicted event is true for each pixel: the pixel belongs to
        the class, or its predicted class is correct.
      num_bins: number of bins.

    Returns:
      Three arrays [num_bins]: number of pixels, number of positive pixels, and sum of the
      probabilities.
    """
    bins = np.clip(np.ceil(probability * num_bins) - 1, 0, num_bins - 1).astype(np.intp)
    return (
        np.bincount(bins, minlength=num_bins),
        np.bincount(bins[positive], minlength=num_bins),
        np.bincount(bins, weights=probability, minlength=num_bins),
    )
