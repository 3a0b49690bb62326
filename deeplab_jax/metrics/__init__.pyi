# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .average_precision import NUM_BINS as NUM_BINS
from .average_precision import PrecisionRecall as PrecisionRecall
from .average_precision import probability_bins as probability_bins
from .bootstrap import Change as Change
from .bootstrap import paired_change as paired_change
from .boundary import BoundaryMatch as BoundaryMatch
from .boundary import TrimapConfusion as TrimapConfusion
from .calibration import DEFAULT_BINS as DEFAULT_BINS
from .calibration import CalibrationCounts as CalibrationCounts
from .confusion import ConfusionMatrix as ConfusionMatrix
from .error_detection import ErrorDetection as ErrorDetection
