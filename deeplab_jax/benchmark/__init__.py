"""Benchmarks of this package on the current machine."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".crf": "measure_crf",
        ".engines": "measure_models write_random_model",
        ".machine": "describe_machine measure_peaks run_seconds",
        ".networks": "Contender compiled_contender measure_network",
        ".pipeline": "cores_to_feed measure_pipeline",
        ".scaling": "Point exponents measure_scaling write_csv write_plot",
        ".shapes_task": "network_mean_iou per_pixel_mean_iou",
        ".start": "measure_commands measure_start",
    },
)
