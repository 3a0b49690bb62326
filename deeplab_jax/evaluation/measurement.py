"""Every measure of a model on a split, with pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deeplab_jax.data import Batch, Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.report import metrics_dictionary, write_report
from deeplab_jax.evaluation.split_pass import DEFAULT_BATCH_SIZE, Forward, SplitPass
from deeplab_jax.evaluation.tally import Tally
from deeplab_jax.inference import ImageClassification, Predictor
from deeplab_jax.inference.padding import Size
from deeplab_jax.metrics import probability_bins
from deeplab_jax.models import DeepLab
from deeplab_jax.reporter import LoggingReporter, Reporter
from deeplab_jax.visualize import Row

# Images of a contact sheet.
SHEET_ROWS = 6


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    size: Size | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    mesh: Mesh | None = None,
    workers: int = 0,
    limit: int | None = None,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measures a model on a split: whole images, one scale.

    Args:
      predictor: the model.
      dataset: of `open_dataset` or an `ArrayDataset`, of the model's classes.
      size: (H, W) to pad every image to, rounded up to what suits the network; default: of the
        largest image, at least the predictor's inference size.
      batch_size: of all hosts together; rounded up to a multiple of the devices. The numbers do
        not depend on it.
      mesh: devices to use, by default all.
      workers: processes that read ahead.
      limit: only the first so many images.
      output: directory for `metrics.json`, `confusion_matrix.png` and `contact_sheet.png`.
      reporter: hears of progress; by default the logger does.

    Returns:
      What `metrics.json` holds; measures are 0..1, None where nothing could be measured.

    Raises:
      DeepLabError: the model has no class map, there is no image or no labelled pixel, an image is
        damaged or larger than the size, or data set and model differ in their classes.
    """
    reporter = reporter or LoggingReporter()
    if isinstance(predictor, ImageClassification):
        raise DeepLabError(
            f"{predictor.source} classifies whole images and has no class map to measure; "
            "train a segmentation network that starts from it (training.init_from), or give one"
        )
    split = SplitPass(
        predictor.model,
        dataset,
        _forward(predictor.model),
        size=size,
        minimum_size=predictor.inference_size,
        batch_size=batch_size,
        mesh=mesh,
        workers=workers,
        limit=limit,
    )
    _warn_of_other_names(predictor, dataset, reporter)
    tally, sheet = _count(split, predictor, reporter)
    metrics = metrics_dictionary(predictor.class_names, tally) | {
        "num_images": split.num_images,
        "settings": _settings(predictor, split, limit),
    }
    if output is not None and jax.process_index() == 0:
        write_report(Path(output), metrics, sheet, predictor.class_names, predictor.palette)
    return metrics


def _count(split: SplitPass, predictor: Predictor, reporter: Reporter) -> tuple[Tally, list[Row]]:
    """Returns what the whole split counts to, and evenly spread images, as far as on this host."""
    shown = np.linspace(0, split.num_images - 1, SHEET_ROWS).round()
    tally, sheet = Tally.empty(len(predictor.class_names)), []
    for batch, outputs in split.run(predictor.variables, reporter):
        for index, row, bins in _images(batch, *outputs):
            tally = tally.add(row, bins)
            sheet += [row] if index in shown else []
    tally = tally.over_hosts()
    if not tally.confusion.num_pixels:
        name = f"{split.dataset.name}/{split.dataset.split}"
        raise DeepLabError(f"{name}: every pixel is void; there is nothing to measure")
    return tally, sheet


def _forward(model: DeepLab) -> Forward:
    def classify_and_rank(variables: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = model.apply(variables, image, train=False)
        bins = probability_bins(jax.nn.softmax(logits, axis=-1))
        return jnp.argmax(logits, axis=-1).astype(jnp.uint8), jnp.moveaxis(bins, -1, 1)

    return classify_and_rank


def _images(
    batch: Batch, class_maps: np.ndarray, bins: np.ndarray
) -> Iterable[tuple[int, Row, np.ndarray]]:
    """Yields each true example's position in the split, the example at its own size, its bins."""
    for position in np.flatnonzero(batch["index"] >= 0):
        height, width = batch["size"][position]
        inside = np.s_[:height, :width]
        row = Row(
            batch["image"][position][inside],
            batch["label"][position][inside],
            class_maps[position][inside],
        )
        yield batch["index"][position], row, bins[position][:, :height, :width]


def _warn_of_other_names(predictor: Predictor, dataset: Dataset, reporter: Reporter) -> None:
    names = zip(predictor.class_names, dataset.descriptor.class_names, strict=True)
    other = [f"{mine!r} is {theirs!r}" for mine, theirs in names if mine != theirs]
    if other:
        reporter.warning(
            f"{len(other)} classes of the model have other names in {dataset.name}: {other[0]}"
        )


def _settings(predictor: Predictor, split: SplitPass, limit: int | None) -> dict[str, Any]:
    device = split.mesh.devices.flat[0]
    return {
        "model": predictor.source,
        "dataset": split.dataset.name,
        "split": split.dataset.split,
        "limit": limit,
        "size": list(split.size),
        "output_stride": predictor.model.architecture.output_stride,
        "batch_size": split.batch_size,
        "devices": f"{split.mesh.size} x {device.device_kind}",
    }
