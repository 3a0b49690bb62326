"""Visualization: class maps in color, overlays, contact sheets and training curves."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".class_maps": (
            "colorize displayed legend_strip overlay png_bytes write_class_map write_picture"
        ),
        ".sheet": "Panel contact_sheet example_sheet heat_map uncertainty_sheet",
        ".curves": "write_confusion_matrix write_reliability_diagram write_training_curves",
    },
)
