"""All that is counted of a split, image by image."""

import dataclasses

import numpy as np

from deeplab_jax.evaluation.split_pass import sum_over_hosts
from deeplab_jax.metrics import BoundaryMatch, ConfusionMatrix, PrecisionRecall
from deeplab_jax.visualize import Row


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """What is counted of a split; tallies of images and hosts add up."""

    confusion: ConfusionMatrix
    ranking: PrecisionRecall
    boundary: BoundaryMatch

    @classmethod
    def empty(cls, num_classes: int) -> "Tally":
        """Returns the tally of no image."""
        kinds = (ConfusionMatrix, PrecisionRecall, BoundaryMatch)
        return cls(*(kind.empty(num_classes) for kind in kinds))

    def add(self, row: Row, bins: np.ndarray) -> "Tally":
        """Returns the tally with one image more, at its own size.

        Args:
          row: the image with its truth and prediction.
          bins: uint16 [num_classes, H, W], of `probability_bins`.
        """
        labels = row.truth, row.prediction, len(bins)
        return Tally(
            self.confusion.merge(ConfusionMatrix.from_labels(*labels)),
            self.ranking.merge(PrecisionRecall.from_bins(row.truth, bins)),
            self.boundary.merge(BoundaryMatch.from_labels(*labels)),
        )

    def over_hosts(self) -> "Tally":
        """Returns the sum of every host's tally."""
        return Tally(
            ConfusionMatrix(sum_over_hosts(self.confusion.counts)),
            PrecisionRecall(
                sum_over_hosts(self.ranking.positives), sum_over_hosts(self.ranking.pixels)
            ),
            BoundaryMatch(sum_over_hosts(self.boundary.counts)),
        )
