"""Measures of a segmentation: counts that merge over images and hosts, and their ratios."""

from deeplab_jax.metrics.average_precision import NUM_BINS, PrecisionRecall, probability_bins
from deeplab_jax.metrics.bootstrap import Change, paired_change
from deeplab_jax.metrics.boundary import BoundaryMatch, TrimapConfusion
from deeplab_jax.metrics.confusion import ConfusionMatrix

__all__ = [
    "NUM_BINS",
    "BoundaryMatch",
    "Change",
    "ConfusionMatrix",
    "PrecisionRecall",
    "TrimapConfusion",
    "paired_change",
    "probability_bins",
]
