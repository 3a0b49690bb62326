# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .calibration import calibration_images as calibration_images
from .channel_scores import Moments as Moments
from .channel_scores import measure as measure
from .effects import compare as compare
from .effects import report_table as report_table
from .effects import write_comparison as write_comparison
from .fine_tuning import distilled as distilled
from .fine_tuning import fine_tune as fine_tune
from .fine_tuning import recipe_of as recipe_of
from .fine_tuning import with_network as with_network
from .magnitude_pruning import pruned_gradually as pruned_gradually
from .magnitude_pruning import sparsity_of as sparsity_of
from .pruning import prune_channels as prune_channels
from .quantization import quantization_aware as quantization_aware
from .quantization import quantize as quantize
