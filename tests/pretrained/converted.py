"""Predictors straight from files of published weights."""

from pathlib import Path

from deeplab_jax.inference import Predictor
from deeplab_jax.pretrained import convert


def converted_predictor(path: Path) -> Predictor:
    """Returns the predictor of a file, without a model directory on the way."""
    conversion = convert(path)
    description = conversion.description
    return Predictor(
        description.create_model(),
        conversion.variables,
        description.class_names,
        description.palette,
        description.inference_size,
    )
