"""Loads a trained model for inference, by name or path."""

from pathlib import Path

from deeplab_jax import inference, pretrained
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import is_exported
from deeplab_jax.reporter import Reporter


def load(
    reference: str | Path,
    checkpoint: str | int = "best",
    ema: bool | None = None,
    reporter: Reporter | None = None,
    engine: str | None = None,
) -> "inference.Predictor | inference.ImageClassification":
    """Loads a trained model for inference.

    Args:
      reference: one of the following:

        * path of a model directory or of a training workdir
        * address of a model on the Hugging Face Hub, `hf://user/name` or `hf://user/name@revision`
        * name from `list_pretrained`; the weights are downloaded and converted on first use
        * path of a .stablehlo, .onnx or .tflite file that `deeplab-jax export` wrote
      checkpoint: checkpoint of a workdir: `best`, `last` or a step (default: `best`).
      ema: whether to use the moving average of the variables in the checkpoint of a workdir; None:
        True if the checkpoint contains it. For a model directory, which has only one set of
        variables, `checkpoint` and `ema` are ignored. For an exported file, neither may be set.
      reporter: receives progress events of downloads and exports (default: the logger).
      engine: runtime of the network: `jax`, `onnx` (ONNX Runtime) or `tflite` (LiteRT). `onnx` and
        `tflite` export the network once per image size. Default: the runtime of an exported file,
        else `jax`.

    Returns:
      A predictor of class maps or, for an image classifier, of image classes.

    Raises:
      DeepLabError: the model, the checkpoint or the moving average does not exist, weights cannot
        be downloaded, or the engine does not support the model.
    """
    if is_exported(reference):
        if checkpoint != "best" or ema is not None:
            raise DeepLabError(
                "checkpoint and ema do not apply to exported files, which contain one set of "
                f"weights; to load {reference}, omit checkpoint and ema"
            )
        from deeplab_jax.export.engines import load_file

        return load_file(reference, engine)
    predictor = inference.load(pretrained.locate(reference, reporter), checkpoint, ema)
    predictor.source = str(reference)
    if engine in (None, "jax"):
        return predictor
    if not isinstance(predictor, inference.Predictor):
        raise DeepLabError(
            f"{reference} is an image classifier, which only the engine jax supports; omit engine"
        )
    from deeplab_jax.export.engines import with_engine

    return with_engine(predictor, engine, reporter=reporter)
