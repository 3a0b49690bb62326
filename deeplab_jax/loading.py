"""Loads a trained model for inference, by name or path."""

from pathlib import Path

from deeplab_jax import inference, pretrained
from deeplab_jax.reporter import Reporter


def load(
    reference: str | Path,
    checkpoint: str = "best",
    ema: bool | None = None,
    reporter: Reporter | None = None,
) -> "inference.Predictor | inference.ImageClassification":
    """Loads a trained model for inference.

    Args:
      reference: path of a model directory or of a training workdir, or a name from
        `list_pretrained`, whose weights are downloaded and converted on first use.
      checkpoint: checkpoint of a workdir: `best`, `last` or a step (default: `best`).
      ema: whether to use the moving average of the parameters; None: if the run kept one.
      reporter: receives progress events of downloads (default: the logger).

    Returns:
      A predictor of class maps or, for an image classifier, of image classes.

    Raises:
      DeepLabError: the model, the checkpoint or the moving average does not exist, or weights
        cannot be downloaded.
    """
    predictor = inference.load(pretrained.locate(reference, reporter), checkpoint, ema)
    predictor.source = str(reference)
    return predictor
