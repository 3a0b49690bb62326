"""Measures of a segmentation: counts that merge over images and hosts, and their ratios."""

from deeplab_jax.metrics.average_precision import NUM_BINS, PrecisionRecall, probability_bins
from deeplab_jax.metrics.boundary import BoundaryMatch
from deeplab_jax.metrics.confusion import ConfusionMatrix
from deeplab_jax.metrics.trimap import TrimapConfusion

__all__ = [
    "NUM_BINS",
    "BoundaryMatch",
    "ConfusionMatrix",
    "PrecisionRecall",
    "TrimapConfusion",
    "probability_bins",
]
