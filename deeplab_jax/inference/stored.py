"""Predictors of models on disk."""

from pathlib import Path

from deeplab_jax.checkpointing import CLASSIFICATION, read_model
from deeplab_jax.inference.image_classification import ImageClassification
from deeplab_jax.inference.predictor import Predictor


def load(
    path: str | Path, checkpoint: str = "best", ema: bool | None = None
) -> Predictor | ImageClassification:
    """Returns the predictor of a model on disk.

    Args:
      path: of a workdir or model directory.
      checkpoint: of a workdir: `best`, `last` or a step.
      ema: use the averaged parameters; None: where the run kept them.

    Returns:
      What gives class maps; of a classifier of whole images what gives their classes.

    Raises:
      DeepLabError: there is no model, no such checkpoint, or no averaged parameters.
    """
    stored = read_model(path, checkpoint, ema)
    description = stored.description
    if description.task == CLASSIFICATION:
        return ImageClassification(
            stored.model,
            stored.variables,
            description.class_names,
            description.inference_size,
            source=str(path),
        )
    return Predictor(
        stored.model,
        stored.variables,
        description.class_names,
        description.palette,
        description.inference_size,
        source=str(path),
        intensity_range=description.intensity_range,
    )
