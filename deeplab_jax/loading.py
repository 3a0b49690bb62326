"""Loading of a predictor by name or path."""

from pathlib import Path

from deeplab_jax import inference, pretrained
from deeplab_jax.reporter import Reporter


def load(
    reference: str | Path,
    checkpoint: str = "best",
    ema: bool | None = None,
    reporter: Reporter | None = None,
) -> "inference.Predictor | inference.ImageClassification":
    """Returns the predictor of a model.

    Args:
      reference: path of a model directory or workdir, or a name of `list_pretrained`, whose weights
        are downloaded and converted on first use.
      checkpoint: checkpoint of a workdir: `best`, `last` or a step (default: `best`).
      ema: use the averaged parameters; None uses them if the run kept them.
      reporter: receives progress events of downloads (default: the logger).

    Returns:
      A predictor of class maps or, for an image classifier, of classes.

    Raises:
      DeepLabError: there is no such model or checkpoint, no averaged parameters, or no network.
    """
    predictor = inference.load(pretrained.locate(reference, reporter), checkpoint, ema)
    predictor.source = str(reference)
    return predictor
