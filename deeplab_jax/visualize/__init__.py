"""Pictures: class maps in colour, overlays, contact sheets, curves."""

from deeplab_jax.labels import VOID_COLOR
from deeplab_jax.visualize.class_maps import (
    colorize,
    legend_strip,
    overlay,
    png_bytes,
    write_class_map,
    write_picture,
)
from deeplab_jax.visualize.contact_sheet import Row, contact_sheet
from deeplab_jax.visualize.curves import write_confusion_matrix, write_training_curves

__all__ = [
    "VOID_COLOR",
    "Row",
    "colorize",
    "contact_sheet",
    "legend_strip",
    "overlay",
    "png_bytes",
    "write_class_map",
    "write_confusion_matrix",
    "write_picture",
    "write_training_curves",
]
