"""Exports trained networks to StableHLO, ONNX, TFLite and Core ML files, and to web pages."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".engines": "FilePredictor load_file with_engine",
        ".metadata": "Metadata parse_metadata",
        ".program": "ExportOptions Program",
        ".runtimes": "ExportedNetwork export load_exported program_for",
        ".verification": "Verification cases verify",
        ".web": "find_runtime write_page",
    },
)
