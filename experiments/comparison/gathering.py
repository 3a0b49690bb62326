"""Evaluation of several models on one dataset split, for a comparison page."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_jax.data import Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import evaluate
from deeplab_jax.evaluation.passes import EvaluationSettings, make_inference
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.padding import canvas_size
from deeplab_jax.models import summarize
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize.class_maps import Color


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """Results of one model.

    Attributes:
      metrics: metrics of the evaluation, as in `metrics.json`.
      parameters: number of parameters.
      macs: multiply-adds of one forward pass. The input has the largest height and the largest
        width of the shown images, padded as in inference.
      seconds_per_image: mean time, over the shown images, from the decoded image to the class map,
        without compilation.
    """

    metrics: Mapping[str, Any]
    parameters: int
    macs: int
    seconds_per_image: float


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """An image with its label and all predictions.

    Attributes:
      name: name of the image.
      image: uint8 or uint16 [H, W, C].
      truth: label map, uint8 or uint16 [H, W].
      predictions: class maps int32 [H, W], by the name of the model.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Results of several models on one dataset split.

    Attributes:
      dataset: name and split of the dataset, and number of evaluated images, as text.
      class_names, palette: names and colors of the classes of the first model.
      models: results by the name of the model.
      shown: images that the page shows.
    """

    dataset: str
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]
    models: Mapping[str, Compared]
    shown: tuple[Shown, ...]


def compare(
    predictors: Mapping[str, Predictor],
    dataset: Dataset,
    *,
    options: InferenceOptions | None = None,
    num_images: int = 4,
    trimap_widths: Sequence[int] = (1, 2, 5, 10, 20, 40),
    limit: int | None = None,
    batch_size: int = 4,
    reporter: Reporter,
) -> Comparison:
    """Evaluates and times models on one dataset split.

    Args:
      predictors: models by name.
      dataset: dataset split to evaluate. It must have the classes of the models.
      options: inference options for all models (default: those of each predictor).
      num_images: number of images to show, evenly spaced over the evaluated images.
      trimap_widths: widths in pixels of zones around void pixels; each zone has its own mean IoU.
      limit: maximum number of images to evaluate, from the start of the split.
      batch_size: number of images per batch of the evaluation.
      reporter: receives progress events.

    Raises:
      DeepLabError: no model is given, a model classifies whole images or does not support the
        options, or a model and the dataset have different bands or numbers of classes.
    """
    if not predictors:
        raise DeepLabError("no model to compare; give --models=NAME=MODEL,NAME=MODEL")
    for predictor in predictors.values():
        # Errors are raised before any evaluation.
        make_inference(predictor, dataset, EvaluationSettings(batch_size=batch_size, limit=limit))
    if options is not None:
        predictors = {name: one.with_options(options) for name, one in predictors.items()}
    count = len(dataset) if limit is None else min(limit, len(dataset))
    indexes = dict.fromkeys(np.linspace(0, count - 1, min(num_images, count)).round().astype(int))
    examples = [dataset[int(index)] for index in indexes]
    models, class_maps = {}, {}
    for name, predictor in predictors.items():
        reporter.message(f"measuring {name}")
        metrics = evaluate(
            predictor,
            dataset,
            trimap_widths=trimap_widths,
            limit=limit,
            batch_size=batch_size,
            reporter=reporter,
        )
        images = [example["image"] for example in examples]
        class_maps[name], seconds = _timed(predictor, images)
        models[name] = _compared(predictor, metrics, images, seconds)
    first = next(iter(predictors.values()))
    return Comparison(
        f"{dataset.name}/{dataset.split}, {count} images",
        first.class_names,
        first.palette,
        models,
        _shown(examples, class_maps),
    )


def _shown(
    examples: Sequence[Mapping[str, Any]], class_maps: Mapping[str, Sequence[np.ndarray]]
) -> tuple[Shown, ...]:
    """Returns the images to show, with their labels and the class maps of all models."""
    return tuple(
        Shown(
            example["image_id"],
            example["image"],
            example["label"],
            {name: maps[position] for name, maps in class_maps.items()},
        )
        for position, example in enumerate(examples)
    )


def _timed(predictor: Predictor, images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Returns the class maps of images, and the mean time per image in seconds, after a warm-up."""
    for image in images:
        predictor(image)
    started = time.perf_counter()
    class_maps = [predictor(image) for image in images]
    return class_maps, (time.perf_counter() - started) / max(len(images), 1)


def _compared(
    predictor: Predictor,
    metrics: Mapping[str, Any],
    images: Sequence[np.ndarray],
    seconds: float,
) -> Compared:
    largest = np.max([image.shape[:2] for image in images], axis=0)
    size = canvas_size(
        predictor.model,
        tuple(map(int, largest)),
        predictor.inference_size,
        scales=predictor.options.scales,
    )
    summary = summarize(predictor.model, size)
    return Compared(metrics, summary.parameters, summary.macs, seconds)
