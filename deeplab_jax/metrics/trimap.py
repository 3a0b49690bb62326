"""How well a segmentation is near the outlines of objects: mean IoU in bands around void."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.metrics.confusion import ConfusionMatrix

MAX_WIDTH = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class TrimapConfusion:
    """Confusion matrices of the pixels that lie near void, which outlines objects in VOC.

    The band of width w is the void pixels grown by a square of (2w + 1) × (2w + 1) pixels, without
    the void pixels themselves.

    Attributes:
      widths: of the bands, in pixels, rising.
      counts: int64 [widths, num_classes, num_classes], truth in rows.

    Source: DeepLab v1, section 5, as the released evaluation computes it.
    """

    widths: tuple[int, ...]
    counts: np.ndarray

    @classmethod
    def empty(cls, num_classes: int, widths: Sequence[int]) -> "TrimapConfusion":
        """Returns the matrices of no pixels, where merging starts.

        Raises:
          DeepLabError: a width is illegal.
        """
        for width in widths:
            if not (isinstance(width, int) and 1 <= width <= MAX_WIDTH):
                raise DeepLabError(
                    f"trimap width {width!r} is not legal; give whole numbers 1..{MAX_WIDTH}"
                )
        widths = tuple(sorted(set(widths)))
        return cls(widths, np.zeros((len(widths), num_classes, num_classes), np.int64))

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> "TrimapConfusion":
        """Returns the matrices with one image more.

        Args:
          truth: integers [H, W], 0..num_classes-1, or `labels.void_label(num_classes)` for void.
          prediction: integers [H, W], 0..num_classes-1.
        """
        if not self.widths:
            return self
        num_classes = self.counts.shape[1]
        void = label_dtype(num_classes).type(void_label(num_classes))
        # Squares are the discs of the chessboard distance: one map serves all widths.
        solid = np.where(truth == void, 0, 1).astype(np.uint8)
        distance = cv2.distanceTransform(solid, cv2.DIST_C, 3) if not solid.all() else np.inf
        counts = []
        for width in self.widths:
            label = np.where(distance <= width, truth, void)
            counts.append(ConfusionMatrix.from_labels(label, prediction, num_classes))
        return self.merge(TrimapConfusion(self.widths, np.stack([one.counts for one in counts])))

    def merge(self, other: "TrimapConfusion") -> "TrimapConfusion":
        """Returns the matrices of both sets of images, which must have the same widths."""
        return TrimapConfusion(self.widths, self.counts + other.counts)

    @property
    def mean_iou(self) -> dict[int, float]:
        """Mean IoU by width; NaN where no pixel lies in the band."""
        return {
            width: ConfusionMatrix(counts).mean_iou
            for width, counts in zip(self.widths, self.counts, strict=True)
        }
