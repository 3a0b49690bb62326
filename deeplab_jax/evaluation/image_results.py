"""The result of every image of a split, at its own size, however the model is applied."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.data import Batch, Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.split_pass import SplitPass
from deeplab_jax.evaluation.tiled_pass import TiledPass
from deeplab_jax.inference import ImageClassification, Predictor
from deeplab_jax.inference.refinement import refine
from deeplab_jax.labels import label_dtype
from deeplab_jax.metrics import NUM_BINS, probability_bins
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import Row


class ImageResult(NamedTuple):
    """One image.

    Attributes:
      index: position in the split.
      row: the image with its truth and prediction.
      bins: uint16 [num_classes, H, W], of `probability_bins`.
    """

    index: int
    row: Row
    bins: np.ndarray


def open_pass(predictor: Predictor, dataset: Dataset, **settings: Any) -> SplitPass | TiledPass:
    """Returns the way through a split that the predictor's options ask for.

    Args:
      predictor: the model, with its options.
      dataset: of the model's classes.
      **settings: size, batch_size, mesh, workers, limit: as of `evaluate`.

    Raises:
      DeepLabError: the model has no class map, there is no image, or data set and model differ in
        their classes.
    """
    if isinstance(predictor, ImageClassification):
        raise DeepLabError(
            f"{predictor.source} classifies whole images and has no class map to measure; "
            "train a segmentation network that starts from it (training.init_from), or give one"
        )
    finish = _channels_first if predictor.crf else _classify_and_rank
    network, _ = predictor.folded
    given = network, dataset, finish
    if not predictor.tiling:
        minimum_size = predictor.inference_size
        options = predictor.options
        return SplitPass(*given, options=options, minimum_size=minimum_size, **settings)
    if settings.pop("size", None) is not None:
        raise DeepLabError("size is what whole images are padded to; leave it out beside tiles")
    # Reading ahead gains nothing beside that many tiles.
    settings.pop("workers", None)
    return TiledPass(*given, options=predictor.options, **settings)


def image_results(
    split: SplitPass | TiledPass, predictor: Predictor, reporter: Reporter
) -> Iterator[ImageResult]:
    """Yields this host's images, each exactly once.

    Args:
      split: of `open_pass` for this predictor.
      predictor: the model.
      reporter: hears of progress.
    """
    for batch, outputs in split.run(predictor.folded[1], reporter):
        for position in np.flatnonzero(batch["index"] >= 0):
            yield _image_result(batch, outputs, position, predictor)


def _image_result(batch: Batch, outputs: Any, position: int, predictor: Predictor) -> ImageResult:
    height, width = batch["size"][position]
    image = batch["image"][position, :height, :width]
    label = batch["label"][position, :height, :width]
    own = jax.tree.map(lambda array: array[position, ..., :height, :width], outputs)
    class_map, bins = own if predictor.crf is None else _refined(own, image, predictor)
    return ImageResult(int(batch["index"][position]), Row(image, label, class_map), bins)


def _refined(
    logits: np.ndarray, image: np.ndarray, predictor: Predictor
) -> tuple[np.ndarray, np.ndarray]:
    scores = np.moveaxis(logits, 0, -1)
    probabilities = refine(scores, np.ascontiguousarray(image), predictor.crf)
    bins = np.clip(probabilities * NUM_BINS, 0, NUM_BINS - 1).astype(np.uint16)
    dtype = label_dtype(scores.shape[-1])
    return probabilities.argmax(axis=-1).astype(dtype), np.moveaxis(bins, -1, 0)


def _classify_and_rank(class_map: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    bins = probability_bins(jax.nn.softmax(logits, axis=-1))
    dtype = label_dtype(logits.shape[-1])
    return class_map.astype(dtype), jnp.moveaxis(bins, -1, 1)


def _channels_first(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    del class_map
    return jnp.moveaxis(logits, -1, 1)
