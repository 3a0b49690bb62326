"""Segmentation metrics, computed from counts that are summed over images and hosts."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".average_precision": "NUM_BINS PrecisionRecall probability_bins",
        ".bootstrap": "Change paired_change",
        ".boundary": "BoundaryMatch TrimapConfusion",
        ".calibration": "DEFAULT_BINS CalibrationCounts",
        ".confusion": "ConfusionMatrix",
        ".error_detection": "ErrorDetection",
    },
)
