"""Average precision per class, over pixels ranked by the probability of the class."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from deeplab_jax.arrays import Array, Float, Integer, UInt16
from deeplab_jax.labels import void_label

NUM_BINS = 1000


def probability_bins(probabilities: Float[Array, "*shape"]) -> UInt16[Array, "*shape"]:
    """Returns the index of the bin of each probability, among 1,000 bins of equal width.

    Computing the bins on the device halves the size of the transfer to the host.

    Args:
      probabilities: float32 of any shape, 0..1.

    Returns:
      uint16 of the same shape: ⌊1000·p⌋, with p = 1 in the last bin.
    """
    return jnp.clip(probabilities * NUM_BINS, 0, NUM_BINS - 1).astype(jnp.uint16)


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Histograms of predicted probabilities, from which average precision is computed.

    Attributes:
      positives: int64 [num_classes, 1000]. Row c counts the valid pixels of class c in 1000 bins of
        the predicted probability of class c.
      pixels: int64 [num_classes, 1000]. Row c counts all valid pixels in the same bins.
    """

    positives: np.ndarray
    pixels: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> "PrecisionRecall":
        """Returns a `PrecisionRecall` in which all counts are zero."""
        return cls(*np.zeros((2, num_classes, NUM_BINS), np.int64))

    @classmethod
    def from_bins(
        cls, truth: Integer[np.ndarray, "H W"], bins: Integer[np.ndarray, "C H W"]
    ) -> "PrecisionRecall":
        """Returns the histograms of one image.

        Args:
          truth: integers [H, W], 0..num_classes − 1, or `labels.void_label(num_classes)` for void.
          bins: uint16 [num_classes, H, W], the result of `probability_bins`.
        """
        num_classes = len(bins)
        void = truth == void_label(num_classes)
        own_class = np.where(void, 0, truth).astype(np.intp)
        own_bin = np.take_along_axis(bins, own_class[None], axis=0)[0]
        cell = own_class * NUM_BINS + own_bin
        positives = np.bincount(cell[~void], minlength=num_classes * NUM_BINS)
        # Void pixels are in an additional bin. Classes are counted one at a time, because the bins
        # of one class fit into the cache.
        counted = np.where(void, np.uint16(NUM_BINS), bins).reshape(num_classes, -1)
        pixels = [np.bincount(one, minlength=NUM_BINS + 1)[:NUM_BINS] for one in counted]
        return cls(positives.reshape(num_classes, NUM_BINS), np.stack(pixels))

    def merge(self, other: "PrecisionRecall") -> "PrecisionRecall":
        """Returns the sum of these histograms and those of other images."""
        return PrecisionRecall(self.positives + other.positives, self.pixels + other.pixels)

    @property
    def per_class_average_precision(self) -> Float[np.ndarray, " C"]:
        """Average precision per class, Σ (R_n − R_{n−1})·P_n, float64 [num_classes].

        R_n and P_n are recall and precision at the nth threshold. The thresholds are the lower
        edges of the bins, in decreasing order. NaN for classes that are absent from the truth.
        """
        gained = self.positives[:, ::-1]
        found = np.cumsum(gained, axis=1)
        claimed = np.cumsum(self.pixels[:, ::-1], axis=1)
        total = found[:, -1]
        # The products of two numbers of pixels can exceed int64.
        area = (gained.astype(np.float64) * found / np.maximum(claimed, 1)).sum(axis=1)
        return np.where(total > 0, area / np.maximum(total, 1), np.nan)
