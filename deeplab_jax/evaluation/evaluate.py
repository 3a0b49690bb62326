"""Evaluates a model on a split: from images to metrics."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from deeplab_jax.data import Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.image_results import image_results, open_pass
from deeplab_jax.evaluation.report import metrics_dictionary, write_report
from deeplab_jax.evaluation.split_pass import (
    DEFAULT_BATCH_SIZE,
    SplitPass,
    image_sizes,
    sum_over_hosts,
)
from deeplab_jax.evaluation.tally import Tally
from deeplab_jax.evaluation.tiled_pass import TiledPass
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import fusion_rule
from deeplab_jax.inference.padding import Size
from deeplab_jax.labels import label_dtype
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.models import DeepLab
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.visualize import Row


def _common_size(dataset: Dataset) -> Size | None:
    """Returns the (H, W) that all images have; None where they differ, or there is none."""
    sizes = set(map(tuple, image_sizes(dataset, len(dataset)).tolist()))
    return sizes.pop() if len(sizes) == 1 else None


class Evaluator:
    """Measures variables of one model on one split, again and again; compiled once."""

    def __init__(
        self,
        model: DeepLab,
        dataset: Dataset,
        *,
        size: Size | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        mesh: Mesh | None = None,
        workers: int = 0,
        limit: int | None = None,
    ) -> None:
        """Decides sizes; nothing runs yet.

        Args:
          model: whose variables are measured.
          dataset: any data set of the same classes.
          size: (H, W) to pad every image to, rounded up to what suits the network; default: where
            all images have one size, the smallest that suits the network, else what follows from
            each image's own size, see `canvas_size`.
          batch_size: of all hosts together; rounded up to a multiple of the mesh's `data`.
          mesh: devices to use, by default all.
          workers: processes that read ahead.
          limit: only the first so many images.

        Raises:
          DeepLabError: there is no image, or data set and model differ in their classes.
        """

        self._num_classes = model.architecture.num_classes
        dtype = label_dtype(self._num_classes)

        def classify(class_map: jax.Array, logits: jax.Array) -> jax.Array:
            del logits
            return class_map.astype(dtype)

        self._split = SplitPass(
            model,
            dataset,
            classify,
            size=size,
            minimum_size=None if size else _common_size(dataset),
            batch_size=batch_size,
            mesh=mesh,
            workers=workers,
            limit=limit,
        )

    @property
    def size(self) -> Size | None:
        """(H, W) that every image is padded to; None where images are padded to several sizes."""
        sizes = set(self._split.sizes)
        return sizes.pop() if len(sizes) == 1 else None

    def run(self, variables: Any, reporter: Reporter | None = None) -> ConfusionMatrix:
        """Returns the confusion matrix of the whole split, the same on every host.

        Args:
          variables: of the model, on any devices.
          reporter: hears of the batches; by default nobody does.

        Raises:
          DeepLabError: an image is damaged or larger than the size.
        """
        total = ConfusionMatrix.empty(self._num_classes)
        for batch, class_map in self._split.run(variables, reporter or Reporter()):
            counts = ConfusionMatrix.from_labels(batch["label"], class_map, self._num_classes)
            total = total.merge(counts)
        return ConfusionMatrix(sum_over_hosts(total.counts))


# Images of a contact sheet.
SHEET_ROWS = 6


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    options: InferenceOptions | None = None,
    trimap_widths: Sequence[int] = (),
    size: Size | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    mesh: Mesh | None = None,
    workers: int = 0,
    limit: int | None = None,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measures a model on a split.

    Args:
      predictor: the model.
      dataset: of `open_dataset` or an `ArrayDataset`, of the model's classes.
      options: how the model is applied; default: as the predictor does.
      trimap_widths: in pixels, of bands around void in which mean IoU is measured, too.
      size: (H, W) to pad every image to, rounded up to what suits the network; default: each image
        as the predictor pads it, so that its class maps are counted. Not beside tiles.
      batch_size: of all hosts together; rounded up to a multiple of the mesh's `data`. The numbers
        do not depend on it.
      mesh: devices to use, by default all.
      workers: processes that read ahead.
      limit: only the first so many images.
      output: directory for `metrics.json`, `confusion_matrix.png` and `contact_sheet.png`.
      reporter: hears of progress; by default the logger does.

    Returns:
      What `metrics.json` holds; measures are 0..1, None where nothing could be measured.

    Raises:
      DeepLabError: the model has no class map or cannot do what is asked for, there is no labelled
        pixel, an image is damaged or larger than the size, or the classes differ.
    """
    reporter = reporter or LoggingReporter()
    if options is not None and isinstance(predictor, Predictor):
        predictor = predictor.with_options(options)
    split = open_pass(
        predictor,
        dataset,
        size=size,
        batch_size=batch_size,
        mesh=mesh,
        workers=workers,
        limit=limit,
    )
    empty = Tally.empty(len(predictor.class_names), trimap_widths)
    warn_of_other_names(predictor, dataset, reporter)
    tally, sheet = _count(split, predictor, empty, reporter)
    metrics = metrics_dictionary(predictor.class_names, tally) | {
        "num_images": split.num_images,
        "settings": describe_settings(predictor, split, limit),
    }
    if output is not None and jax.process_index() == 0:
        write_report(Path(output), metrics, sheet, predictor.class_names, predictor.palette)
    return metrics


def _count(
    split: SplitPass | TiledPass, predictor: Predictor, tally: Tally, reporter: Reporter
) -> tuple[Tally, list[Row]]:
    """Returns what the whole split counts to, and evenly spread images, as far as on this host."""
    own = split.own_positions()
    shown = own[np.linspace(0, len(own) - 1, SHEET_ROWS).round().astype(int)] if len(own) else own
    sheet = []
    for index, row, bins in image_results(split, predictor, reporter):
        tally = tally.add(row, bins)
        sheet += [(index, row)] if index in shown else []
    tally = tally.over_hosts()
    if not tally.confusion.num_pixels:
        name = f"{split.dataset.name}/{split.dataset.split}"
        raise DeepLabError(f"{name}: every pixel is void; there is nothing to measure")
    return tally, [row for _, row in sorted(sheet, key=lambda pair: pair[0])]


def warn_of_other_names(predictor: Predictor, dataset: Dataset, reporter: Reporter) -> None:
    """Warns where classes of model and data set are called differently."""
    names = zip(predictor.class_names, dataset.descriptor.class_names, strict=True)
    other = [f"{mine!r} is {theirs!r}" for mine, theirs in names if mine != theirs]
    if other:
        reporter.warning(
            f"{len(other)} classes of the model have other names in {dataset.name}: {other[0]}"
        )


def describe_settings(
    predictor: Predictor, split: SplitPass | TiledPass, limit: int | None
) -> dict[str, Any]:
    """Returns all that the numbers depend on, and where they were made, JSON-ready."""
    device = split.mesh.devices.flat[0]
    options, architecture = predictor.options, predictor.model.architecture
    tiling = predictor.tiling
    padded = [list(size) for size in sorted(set(split.sizes or ()))]
    return {
        "model": predictor.source,
        "dataset": split.dataset.name,
        "split": split.dataset.split,
        "limit": limit,
        "size": padded[0] if len(padded) == 1 else None,
        "padded_sizes": None if split.sizes is None else padded,
        "output_stride": architecture.output_stride,
        "atrous_rates": list(architecture.atrous_rates),
        "scales": list(options.scales),
        "flip": options.flip,
        "fusion": fusion_rule(architecture) if options.fuses else None,
        "tile": None if tiling is None else list(tiling.tile),
        "overlap": None if tiling is None else options.overlap,
        "crf": None if predictor.crf is None else dataclasses.asdict(predictor.crf),
        "batch_size": split.batch_size,
        "devices": f"{split.mesh.size} x {device.device_kind}",
    }
