"""Measures of a segmentation: counts that merge over images and hosts, and their ratios."""

from deeplab_jax.metrics.average_precision import NUM_BINS, PrecisionRecall, probability_bins
from deeplab_jax.metrics.boundary import BoundaryMatch
from deeplab_jax.metrics.confusion import ConfusionMatrix

__all__ = [
    "NUM_BINS",
    "BoundaryMatch",
    "ConfusionMatrix",
    "PrecisionRecall",
    "probability_bins",
]
