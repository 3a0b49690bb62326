"""Models on disk: what a workdir or model directory holds for whoever uses the model."""

from deeplab_jax.checkpointing.checkpoints import CHECKPOINTS, choose_step, open_checkpoints
from deeplab_jax.checkpointing.description import (
    CLASSIFICATION,
    SEGMENTATION,
    ModelDescription,
    is_model,
    read_description,
    write_description,
)
from deeplab_jax.checkpointing.store import StoredModel, read_model, read_variables, write_model

__all__ = [
    "CHECKPOINTS",
    "CLASSIFICATION",
    "SEGMENTATION",
    "ModelDescription",
    "StoredModel",
    "choose_step",
    "is_model",
    "open_checkpoints",
    "read_description",
    "read_model",
    "read_variables",
    "write_description",
    "write_model",
]
