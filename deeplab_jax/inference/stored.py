"""Loads a predictor from a model on disk."""

from pathlib import Path

from deeplab_jax.checkpointing import CLASSIFICATION, StoredModel, read_model
from deeplab_jax.inference.image_classification import ImageClassification
from deeplab_jax.inference.predictor import Predictor


def load(
    path: str | Path, checkpoint: str | int = "best", ema: bool | None = None
) -> Predictor | ImageClassification:
    """Returns the predictor of a model on disk.

    Args:
      path: workdir or model directory.
      checkpoint: checkpoint of a workdir: `best`, `last` or a step.
      ema: whether to use the moving average of the variables (EMA) from the checkpoint, instead of
        the variables themselves; None: the moving average if the checkpoint contains it. A model
        directory has only one set of variables, so `checkpoint` and `ema` are ignored.

    Returns:
      A `Predictor` of class maps or, for a classifier of whole images, an `ImageClassification`.

    Raises:
      DeepLabError: the model, the checkpoint or the moving average does not exist.
    """
    return predictor_of(read_model(path, checkpoint, ema), str(path))


def predictor_of(stored: StoredModel, source: str) -> Predictor | ImageClassification:
    """Returns the predictor of a model in memory.

    Args:
      stored: model, variables and description.
      source: name or path of the model, for reports and error messages.
    """
    description = stored.description
    model = stored.model, stored.variables, description.class_names
    size = description.inference_size
    if description.task == CLASSIFICATION:
        return ImageClassification(*model, size, source)
    return Predictor(
        *model,
        description.palette,
        size,
        source,
        intensity_range=description.intensity_range,
        chosen_bands=description.bands,
        temperature=description.temperature,
    )
