"""Evaluation of a model on a dataset split, from images to metrics."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deeplab_jax.data import Dataset
from deeplab_jax.data.datasets import range_doubt
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.class_list import ClassList, make_class_list
from deeplab_jax.evaluation.passes import (
    EvaluationSettings,
    Inference,
    WholeImageInference,
    check_segments,
    image_sizes,
    make_inference,
    sum_over_hosts,
)
from deeplab_jax.evaluation.report import SegmentationMetrics, metrics_dictionary, write_report
from deeplab_jax.evaluation.results import SheetRow, image_results, only_labels
from deeplab_jax.files import as_path, check_output_directory
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import FoldedNetwork, fusion_rule
from deeplab_jax.inference.padding import Size
from deeplab_jax.inference.uncertainty import DROPOUT
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import place, replicated
from deeplab_jax.reporter import LoggingReporter, Reporter


def _common_size(dataset: Dataset) -> Size | None:
    """Returns the (H, W) of all images; None if they differ, or if there is no image."""
    sizes = set(map(tuple, image_sizes(dataset, len(dataset)).tolist()))
    return sizes.pop() if len(sizes) == 1 else None


class Evaluator:
    """Evaluates a network on one split, repeatedly and with different variables.

    The training loop uses this class for validation. Every validation uses the same compiled
    programs, one for each padded image size.
    """

    def __init__(self, model: DeepLab, dataset: Dataset, **settings: Any) -> None:
        """Determines the padded sizes of the images.

        Args:
          model: network to evaluate.
          dataset: split with the classes of the model.
          **settings: fields of `EvaluationSettings`. If no size is given and all images have the
            same size, they are padded to the smallest size that the network accepts. If their sizes
            differ, each image is padded to one of a few sizes that the network accepts.

        Raises:
          DeepLabError: there is no image, an image is larger than the given size, or dataset and
            model differ in their bands or number of classes.
        """
        self._model, chosen = model, EvaluationSettings(**settings)
        minimum = None if chosen.size else _common_size(dataset)
        self._inference = WholeImageInference(model, dataset, chosen, minimum_size=minimum)

    @property
    def size(self) -> Size | None:
        """(H, W) to which all images are padded; None if their padded sizes differ."""
        sizes = set(self._inference.sizes)
        return sizes.pop() if len(sizes) == 1 else None

    def run(
        self,
        variables: Any,
        reporter: Reporter | None = None,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> ConfusionMatrix | None:
        """Evaluates the whole split; returns its confusion matrix, which is equal on all hosts.

        Args:
          variables: variables of the model, on any devices.
          reporter: receives progress events (default: none).
          stopping: function that is called after every batch. If it returns True, the evaluation
            ends, and the result is None. It must return the same value on all hosts.

        Raises:
          DeepLabError: an image is damaged.
        """
        mesh, classes = self._inference.mesh, self._model.architecture.num_classes
        network = FoldedNetwork(self._model, place(variables, replicated(mesh)))
        forward = network.forward(InferenceOptions(), only_labels, mesh)
        total = ConfusionMatrix.empty(classes)
        for batch, class_map in self._inference.run(forward, reporter or Reporter()):
            total = total.merge(ConfusionMatrix.from_labels(batch["label"], class_map, classes))
            if stopping():
                return None
        return ConfusionMatrix(sum_over_hosts(total.counts))


# Number of images on the contact sheet.
SHEET_ROWS = 6


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    options: InferenceOptions | None = None,
    trimap_widths: Sequence[int] = (),
    calibration_bins: int | None = None,
    class_map: Mapping[str, str] | str | Path | None = None,
    classes: Sequence[str] | None = None,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Evaluates a model on a dataset split.

    Args:
      predictor: model to evaluate.
      dataset: split from `open_dataset`, or an `ArrayDataset`. Its classes are those of the model,
        unless `class_map` or `classes` is given.
      options: inference strategy (default: that of the predictor).
      trimap_widths: widths in pixels of bands around void pixels; each band has its own mean IoU.
      calibration_bins: number of equal probability intervals; None: no calibration metrics.
      class_map: {name of a class of the model or the dataset: name of the scored class}, or a file
        with lines `from: to` (default: classes keep their names).
      classes: names of the scored classes (default: all). Pixels whose true class is not scored are
        void. Predicted classes that are not scored count as errors, in the last column of the
        confusion matrix.
      output: directory for `metrics.json` and pictures; see `write_report`.
      reporter: receives progress events (default: the logger).
      **settings: fields of `EvaluationSettings`, such as size and batch_size. Without a size, each
        image is padded to a size that the network accepts.

    Returns:
      The content of `metrics.json`. Accuracies and IoUs are in 0..1. Undefined metrics are None.

    Raises:
      DeepLabError: the model classifies whole images or does not support the options, `output`
        cannot be written, all pixels are void, an image is damaged or larger than the setting
        `size`, the outputs of the network are not finite, or the numbers of classes of model and
        dataset differ without `class_map` and `classes`.
    """
    check_segments(predictor)
    reporter = reporter or LoggingReporter()
    predictor = predictor.with_options(options) if options is not None else predictor
    class_list = make_class_list(predictor.class_names, dataset.descriptor, class_map, classes)
    chosen = EvaluationSettings(class_list=class_list, **settings)
    inference = make_inference(predictor, dataset, chosen)
    outcomes, palette = predictor.class_names, predictor.palette
    if class_list is not None:
        outcomes, palette = class_list.outcomes, class_list.palette
    check_start(predictor, dataset, class_list, output, reporter)
    measured = len(outcomes), trimap_widths, calibration_bins, chosen.uncertainty
    counted, sheet = _count(inference, predictor, chosen, measured, reporter)
    metrics = metrics_dictionary(outcomes[: len(counted.confusion.counts)], counted) | {
        "num_images": inference.num_images,
        "settings": describe_settings(predictor, inference, chosen),
    }
    if output is not None and jax.process_index() == 0:
        write_report(as_path(output), metrics, sheet, outcomes, palette)
    return metrics


def _count(
    inference: Inference,
    predictor: Predictor,
    settings: EvaluationSettings,
    measured: tuple[Any, ...],
    reporter: Reporter,
) -> tuple[SegmentationMetrics, list[SheetRow]]:
    """Returns the pixel counts behind the metrics of a split, and the rows of the contact sheet.

    The counts cover the images of all hosts. The rows are those of at most six evenly spaced
    images of this host, in the order of the split. `measured` contains the arguments of
    `SegmentationMetrics.empty`, which select the metrics.
    """
    class_list, counted = settings.class_list, SegmentationMetrics.empty(*measured)
    own = inference.own_positions()
    shown = own[np.linspace(0, len(own) - 1, SHEET_ROWS).round().astype(int)] if len(own) else own
    sheet = []
    with_probabilities = counted.calibration is not None
    results = image_results(
        inference,
        predictor,
        reporter,
        class_list,
        with_probabilities,
        settings.uncertainty,
        settings.dropout_samples,
    )
    for result in results:
        counted = counted.add(*result[1:])
        sheet += [result.sheet_row()] if result.position in shown else []
    counted = counted.over_hosts()
    if class_list is not None:
        counted = counted.without_last()
    check_labelled(counted.confusion.counts, inference)
    return counted, sorted(sheet, key=lambda row: row.position)


def check_labelled(counts: np.ndarray, inference: Inference) -> None:
    """Checks that a split has at least one pixel that is not void.

    Args:
      counts: numbers of non-void pixels in the split, of any shape, such as a confusion matrix.
      inference: inference over the split. The error message contains the name of its split.

    Raises:
      DeepLabError: every pixel is void.
    """
    if not counts.any():
        name = f"{inference.dataset.name}/{inference.dataset.split}"
        raise DeepLabError(
            f"{name} cannot be evaluated: every pixel is void; give a split with labeled pixels"
        )


def check_start(
    predictor: Predictor,
    dataset: Dataset,
    class_list: ClassList | None,
    output: str | Path | None,
    reporter: Reporter,
) -> None:
    """Checks an evaluation before it starts.

    Warns if model and dataset differ in class names or intensity range.

    Args:
      predictor: model to evaluate.
      dataset: split of the images.
      class_list: classes to score. None: the classes of the model are scored, and their names are
        compared with those of the dataset.
      output: directory for the results, or None.
      reporter: receives the warnings.

    Raises:
      DeepLabError: no file can be written into `output`. This error is raised early, because the
        result of a long evaluation must not be lost.
    """
    if class_list is None:
        warn_of_other_names(predictor, dataset, reporter)
    if doubt := range_doubt(predictor.intensity_range, "the model", dataset):
        reporter.warning(doubt)
    if output is not None and jax.process_index() == 0:
        check_output_directory(as_path(output))


def warn_of_other_names(predictor: Predictor, dataset: Dataset, reporter: Reporter) -> None:
    """Warns if the model and the dataset have different names for the same class index."""
    names = zip(predictor.class_names, dataset.descriptor.class_names, strict=True)
    other = [f"{mine!r} is {theirs!r}" for mine, theirs in names if mine != theirs]
    if other:
        differ = "1 class differs" if len(other) == 1 else f"{len(other)} classes differ"
        reporter.warning(
            f"{differ} in name between the model and the dataset {dataset.name}; for example, the "
            f"class {other[0]} in the dataset"
        )


def describe_settings(
    predictor: Predictor, inference: Inference, settings: EvaluationSettings
) -> dict[str, Any]:
    """Returns the `settings` of `metrics.json`: all settings on which the metrics depend.

    The result also contains the kind and the number of the devices. All values are JSON-ready.
    """
    device = inference.mesh.devices.flat[0]
    options, architecture = predictor.options, predictor.model.architecture
    tiling = predictor.tiling
    padded = [list(size) for size in sorted(set(inference.sizes or ()))]
    return {
        "model": predictor.source,
        "dataset": inference.dataset.name,
        "split": inference.dataset.split,
        "limit": None if settings.limit is None else int(settings.limit),
        "size": padded[0] if len(padded) == 1 else None,
        "padded_sizes": None if inference.sizes is None else padded,
        "output_stride": architecture.output_stride,
        "atrous_rates": list(architecture.atrous_rates),
        "scales": list(options.scales),
        "flip": options.flip,
        "fusion": fusion_rule(architecture) if options.fuses else None,
        "tile": None if tiling is None else list(tiling.tile),
        "overlap": None if tiling is None else options.overlap,
        "uncertainty": list(settings.uncertainty) or None,
        "dropout_samples": settings.dropout_samples if DROPOUT in settings.uncertainty else None,
        "temperature": None if predictor.temperature == 1 else predictor.temperature,
        "crf": None if predictor.crf is None else predictor.crf.describe(),
        "batch_size": inference.batch_size,
        "devices": f"{inference.mesh.size} x {device.device_kind}",
    } | (settings.class_list.settings() if settings.class_list else {})
