"""Sharing of models: a directory with safetensors and a model card, and its upload to the Hub."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".model_card": "CardNotes",
        ".directory": "write_shared_directory",
        ".upload": "check_upload is_shared_model upload_model",
    },
)
