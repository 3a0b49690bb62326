# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .class_maps import colorize as colorize
from .class_maps import displayed as displayed
from .class_maps import legend_strip as legend_strip
from .class_maps import overlay as overlay
from .class_maps import png_bytes as png_bytes
from .class_maps import write_class_map as write_class_map
from .class_maps import write_picture as write_picture
from .sheet import Panel as Panel
from .sheet import contact_sheet as contact_sheet
from .sheet import example_sheet as example_sheet
from .sheet import heat_map as heat_map
from .sheet import uncertainty_sheet as uncertainty_sheet
from .curves import write_confusion_matrix as write_confusion_matrix
from .curves import write_reliability_diagram as write_reliability_diagram
from .curves import write_training_curves as write_training_curves
