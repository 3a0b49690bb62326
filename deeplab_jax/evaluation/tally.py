"""All that is counted of a split, image by image."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from deeplab_jax.evaluation.split_pass import sum_over_hosts
from deeplab_jax.metrics import BoundaryMatch, ConfusionMatrix, PrecisionRecall, TrimapConfusion
from deeplab_jax.visualize import Row


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """What is counted of a split; tallies of images and hosts add up."""

    confusion: ConfusionMatrix
    ranking: PrecisionRecall
    boundary: BoundaryMatch
    trimap: TrimapConfusion

    @classmethod
    def empty(cls, num_classes: int, trimap_widths: Sequence[int] = ()) -> "Tally":
        """Returns the tally of no image.

        Raises:
          DeepLabError: a width is illegal.
        """
        kinds = (ConfusionMatrix, PrecisionRecall, BoundaryMatch)
        return cls(
            *(kind.empty(num_classes) for kind in kinds),
            TrimapConfusion.empty(num_classes, trimap_widths),
        )

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
            self.trimap.add(row.truth, row.prediction),
        )

    def over_hosts(self) -> "Tally":
        """Returns the sum of every host's tally."""
        return Tally(
            ConfusionMatrix(sum_over_hosts(self.confusion.counts)),
            PrecisionRecall(
                sum_over_hosts(self.ranking.positives), sum_over_hosts(self.ranking.pixels)
            ),
            BoundaryMatch(sum_over_hosts(self.boundary.counts)),
            TrimapConfusion(self.trimap.widths, sum_over_hosts(self.trimap.counts)),
        )
