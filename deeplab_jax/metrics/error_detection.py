"""Detection of errors by uncertainty: AUROC and AUPR over all pixels of a split."""

import dataclasses

import numpy as np

from deeplab_jax.arrays import Bool, Float

# Scores are float32. Only the 13 highest bits of the mantissa are used, so that scores in the same
# bin differ by less than 1/8192 of their value.
DROPPED_BITS = 10
NUM_SCORES = (int(np.float32(1).view(np.uint32)) >> DROPPED_BITS) + 1


def score_bins(scores: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Returns the index of the bin of each score, int64.

    The bins are in ascending order. Their width grows with the score: the scores in a bin differ by
    less than 1/8192 of their value.

    Args:
      scores: float32, 0..1; values outside of this range are clipped.
    """
    clipped = np.clip(scores.astype(np.float32), np.float32(0), np.float32(1))
    # Adding 0 turns −0 into 0. The bits of non-negative floats have the order of their values.
    return ((clipped + np.float32(0)).view(np.uint32) >> DROPPED_BITS).astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class ErrorDetection:
    """Two histograms of the uncertainty, one of correctly and one of wrongly predicted pixels.

    The size of the histograms does not depend on the number of images.

    Attributes:
      counts: int64 [2, number of bins], number of correctly (row 0) and wrongly (row 1) predicted
        pixels in each bin of the uncertainty, see `score_bins`.
    """

    counts: np.ndarray

    @classmethod
    def empty(cls) -> "ErrorDetection":
        """Returns histograms of zeros."""
        return cls(np.zeros((2, NUM_SCORES), np.int64))

    def add(
        self, wrong: Bool[np.ndarray, "..."], uncertainty: Float[np.ndarray, "..."]
    ) -> "ErrorDetection":
        """Returns the sum of these histograms and those of one image.

        Args:
          wrong: whether each valid (not void) pixel is predicted incorrectly.
          uncertainty: uncertainty of each valid pixel, 0..1.
        """
        bins = score_bins(uncertainty)
        rows = [np.bincount(bins[wrong == row], minlength=NUM_SCORES) for row in (False, True)]
        return self.merge(ErrorDetection(np.stack(rows)))

    def merge(self, other: "ErrorDetection") -> "ErrorDetection":
        """Returns the sum of these histograms and those of other images."""
        return ErrorDetection(self.counts + other.counts)

    @property
    def auroc(self) -> float:
        """Probability that a wrongly predicted pixel is more uncertain than a correct one.

        Ties count half. NaN if no pixel is predicted wrongly, or none is predicted correctly.
        """
        correct, wrong = self.counts
        below = np.cumsum(correct) - correct
        pairs = float(correct.sum()) * float(wrong.sum())
        found = float((wrong * (below + correct / 2)).sum())
        return found / pairs if pairs else float("nan")

    @property
    def aupr(self) -> float:
        """Average precision of detecting wrongly predicted pixels by their uncertainty.

        NaN if no pixel is predicted wrongly.
        """
        correct, wrong = self.counts[:, ::-1]
        found, claimed = np.cumsum(wrong), np.cumsum(correct + wrong)
        precision = found / np.maximum(claimed, 1)
        return float((wrong * precision).sum() / found[-1]) if found[-1] else float("nan")

    @property
    def error_rate(self) -> float:
        """Fraction of wrongly predicted pixels; NaN without pixels.

        This is the expected value of `aupr` if the uncertainty is random.
        """
        correct, wrong = self.counts.sum(axis=1)
        return float(wrong / (correct + wrong)) if correct + wrong else float("nan")
