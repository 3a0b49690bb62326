"""Reads and writes models and checkpoints in training workdirs and model directories."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".saved_states": "CHECKPOINTS",
        ".orbax_items": "choose_step open_checkpoints",
        ".description": (
            "CLASSIFICATION SAFETENSORS SEGMENTATION ModelDescription check_temperature "
            "description_values is_model parse_description read_description write_description"
        ),
        ".store": (
            "StoredModel WEIGHTS_SHA256 digest_of_variables read_model read_variables write_model "
            "write_shared_model"
        ),
    },
)
