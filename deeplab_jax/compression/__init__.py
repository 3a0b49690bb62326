"""Smaller and faster networks: quantization, pruning and distillation."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".calibration": "calibration_images",
        ".channel_scores": "Moments measure",
        ".effects": "compare report_table write_comparison",
        ".fine_tuning": "distilled fine_tune recipe_of with_network",
        ".magnitude_pruning": "pruned_gradually sparsity_of",
        ".pruning": "prune_channels",
        ".quantization": "quantization_aware quantize",
    },
)
