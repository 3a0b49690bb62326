"""A predictor from whatever names a model; stands above the rooms that it puts together."""

from pathlib import Path

from deeplab_jax import inference
from deeplab_jax.pretrained import locate
from deeplab_jax.reporter import Reporter


def load(
    reference: str | Path,
    checkpoint: str = "best",
    ema: bool | None = None,
    reporter: Reporter | None = None,
) -> inference.Predictor | inference.ImageClassification:
    """Returns the predictor of a model.

    Args:
      reference: path of a model directory or workdir, or a name that `list_pretrained` tells;
        weights of that name are downloaded and converted when first asked for.
      checkpoint: of a workdir: `best`, `last` or a step.
      ema: use the averaged parameters; None: where the run kept them.
      reporter: hears of downloads; by default the logger does.

    Returns:
      What gives class maps; of a classifier of whole images what gives their classes.

    Raises:
      DeepLabError: there is no such model or checkpoint, no averaged parameters, or no network.
    """
    predictor = inference.load(locate(reference, reporter), checkpoint, ema)
    predictor.source = str(reference)
    return predictor
