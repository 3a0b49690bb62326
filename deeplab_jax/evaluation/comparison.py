"""Compares inference options (strategies) by metrics and time per image."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deeplab_jax.data import Dataset
from deeplab_jax.data.folds import Subset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.class_list import make_class_list
from deeplab_jax.evaluation.evaluate import check_labelled, check_start, describe_settings
from deeplab_jax.evaluation.passes import (
    EvaluationSettings,
    Inference,
    WholeImageInference,
    check_segments,
    make_inference,
    sum_over_hosts,
)
from deeplab_jax.evaluation.results import image_results
from deeplab_jax.files import as_path, write_text
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.options import DEFAULT_CRF
from deeplab_jax.metrics import BoundaryMatch, ConfusionMatrix, paired_change
from deeplab_jax.reporter import LoggingReporter, Reporter

# Scales for VOC in the tables of DeepLab v3 and v3+ (v3, section 4.1).
PAPERS_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Least number of images that are predicted again after compilation to measure the time per image.
TIMED_IMAGES = 8


@dataclasses.dataclass(frozen=True, eq=False)
class StrategyResult:
    """Results of one inference strategy on every image.

    Attributes:
      settings: settings of the strategy.
      overlaps: int64 [images, 3, num_classes]; for each image and class, the numbers of correctly
        predicted pixels, of true pixels and of predicted pixels. With many classes, confusion
        matrices per image would not fit into memory.
      boundary: int64 [images, num_classes, 4]; for each image and class, the numbers of predicted
        boundary pixels, of predicted boundary pixels that match the truth, of true boundary pixels,
        and of true boundary pixels that match the prediction.
      seconds_per_image: mean time from the encoded image to the class map, without compilation. If
        images are predicted without tiles, only images of the median padded size are timed.
    """

    settings: Mapping[str, Any]
    overlaps: np.ndarray
    boundary: np.ndarray
    seconds_per_image: float


def strategy_steps(options: InferenceOptions) -> dict[str, InferenceOptions]:
    """Returns the inference strategies that lead from default options to the given options.

    The first strategy has the default options. Each further strategy adds one of the given options
    that differ from the defaults: output stride, scales, flip and CRF, in this order, as in the
    papers. All strategies have the tile size and the overlap of the given options.

    Returns:
      {name of the strategy: options}.
    """
    plain = InferenceOptions(tile=options.tile, overlap=options.overlap)
    steps, reached = {"plain": plain}, plain
    shown = ", ".join(f"{scale:g}" for scale in options.scales)
    names = {
        "output_stride": f"+ output stride {options.output_stride}",
        "scales": f"+ scales {shown}",
        "flip": "+ flip",
        "crf": "+ CRF",
    }
    for field, name in names.items():
        value = getattr(options, field)
        if value != getattr(plain, field):
            reached = dataclasses.replace(reached, **{field: value})
            steps[name] = reached
    return steps


def papers_steps(base: InferenceOptions | None = None) -> dict[str, InferenceOptions]:
    """Returns the inference strategies of DeepLab v3, table 6, followed by one that adds a CRF.

    Args:
      base: options that provide `tile` and `overlap` for all strategies, and `crf` for the last one
        (default: whole images). If `crf` is None, the CRF has the published parameters for the
        architecture.

    Returns:
      {name of the strategy: options}.
    """
    base = base or InferenceOptions()
    last = dataclasses.replace(
        base,
        output_stride=8,
        scales=PAPERS_SCALES,
        flip=True,
        crf=DEFAULT_CRF if base.crf is None else base.crf,
    )
    steps = strategy_steps(last)
    plain = steps.pop("plain")
    first = dataclasses.replace(plain, output_stride=16)
    return {"output stride 16": first} | steps


def compare_strategies(
    predictor: Predictor,
    dataset: Dataset,
    strategies: Mapping[str, InferenceOptions],
    *,
    class_map: Mapping[str, str] | str | Path | None = None,
    classes: Sequence[str] | None = None,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Evaluates a model on a dataset split with several inference strategies.

    Args:
      predictor: model to evaluate.
      dataset: split with the classes of the model, unless `class_map` or `classes` is given.
      strategies: inference options by the name of the strategy. Each strategy is compared with the
        previous one.
      class_map: {name of a class of the model or the dataset: name of the scored class}, or a file
        with lines `from: to` (default: classes keep their names).
      classes: names of the scored classes (default: all); see `evaluate`.
      output: directory for `strategies.json`.
      reporter: receives progress events (default: the logger).
      **settings: fields of `EvaluationSettings`, such as size, batch_size, mesh, workers and limit;
        `uncertainty` is not supported.

    Returns:
      One dictionary per strategy, with the keys

      * `strategy`: name of the strategy,
      * `mean_iou`, `boundary_f_score`: metrics, 0..1; None: undefined,
      * `seconds_per_image`, `settings`: see `StrategyResult`,
      * `mean_iou_change`, `boundary_f_score_change`: `difference` from the previous strategy, with
        its 95 % interval `low`, `high` (see `paired_change`); None for the first strategy.

    Raises:
      DeepLabError: there is no strategy, the setting `uncertainty` is given, the model does not
        support the options, `output` cannot be written, all pixels are void, an image is damaged,
        the outputs of the network are not finite, or neither `class_map` nor `classes` is given,
        although the model and the dataset have different numbers of classes.
    """
    reporter = reporter or LoggingReporter()
    _check_arguments(strategies, settings)
    check_segments(predictor)
    # All passes are prepared first, so that errors are raised before any evaluation.
    predictors = {name: predictor.with_options(options) for name, options in strategies.items()}
    class_list = make_class_list(predictor.class_names, dataset.descriptor, class_map, classes)
    chosen, results = EvaluationSettings(class_list=class_list, **settings), {}
    inferences = {name: make_inference(one, dataset, chosen) for name, one in predictors.items()}
    check_start(predictor, dataset, class_list, output, reporter)
    for name, inference in inferences.items():
        reporter.message(f"strategy: {name}")
        results[name] = _measure(predictors[name], inference, chosen, reporter)
    rows = _rows(results)
    if output is not None and jax.process_index() == 0:
        text = json.dumps(rows, indent=2, allow_nan=False) + "\n"
        write_text(as_path(output) / "strategies.json", text)
    return rows


def _check_arguments(
    strategies: Mapping[str, InferenceOptions], settings: Mapping[str, Any]
) -> None:
    """Checks that there is a strategy, and that no setting would have no effect."""
    if not strategies:
        raise DeepLabError("no inference strategy to evaluate; give at least one")
    if settings.get("uncertainty"):
        raise DeepLabError(
            "compare_strategies does not support the setting uncertainty; omit it, or call "
            "evaluate, which measures how well uncertainties detect wrong pixels"
        )


def _measure(
    predictor: Predictor, inference: Inference, settings: EvaluationSettings, reporter: Reporter
) -> StrategyResult:
    class_list = settings.class_list
    # Only scored classes are compared. The last outcome of a class list is excluded, because it
    # contains the predictions that belong to no scored class.
    scored = len(class_list.names) if class_list else len(predictor.class_names)
    outcomes = class_list.num_outcomes if class_list else scored
    overlaps = np.zeros((inference.num_images, 3, scored), np.int64)
    boundary = np.zeros((inference.num_images, scored, 4), np.int64)
    for index, panel, *_ in image_results(inference, predictor, reporter, class_list):
        labels = panel.truth, panel.prediction, outcomes
        counts = ConfusionMatrix.from_labels(*labels).counts[:scored]
        overlaps[index] = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)[:scored]
        boundary[index] = BoundaryMatch.from_labels(*labels).counts[:scored]
    overlaps = sum_over_hosts(overlaps)
    check_labelled(overlaps, inference)
    return StrategyResult(
        describe_settings(predictor, inference, settings),
        overlaps,
        sum_over_hosts(boundary),
        _seconds_per_image(inference, predictor, compiled=class_list is None),
    )


def _seconds_per_image(inference: Inference, predictor: Predictor, compiled: bool) -> float:
    """Returns the mean time per image, in seconds, of the images that `_timed` selects.

    Args:
      inference: inference over the split.
      predictor: model and inference options.
      compiled: whether these images have been predicted without a class list. If not, they are
        first predicted without measuring the time, so that no compilation is measured.
    """
    timed = _timed(inference)
    for _ in range(1 if compiled else 2):
        started = time.perf_counter()
        for _ in image_results(timed, predictor, Reporter()):
            pass
    return (time.perf_counter() - started) / timed.num_images


def _timed(inference: Inference) -> Inference:
    """Returns the inference over the images whose prediction is timed.

    With tiles, these are the first max(8, batch_size) images of the split, or all if it has fewer.

    Without tiles, these are images whose padded size is the median. The padded sizes depend on the
    strategy, but all strategies select nearly the same images. The selection is repeated or cut, so
    that it contains at least 8 images and fills all batches. An incomplete batch would be filled
    with void examples, which take as much time as images.
    """
    timed = copy.copy(inference)
    count, batch_size = inference.num_images, inference.batch_size
    if not isinstance(timed, WholeImageInference):
        timed.num_images = min(count, max(TIMED_IMAGES, batch_size))
        return timed
    sizes = timed.sizes[:count]
    median = sorted(sizes, key=math.prod)[count // 2]
    positions = [index for index, size in enumerate(sizes) if size == median]
    timed.num_images = -(-TIMED_IMAGES // batch_size) * batch_size
    repeated = np.resize(positions, timed.num_images)
    timed.dataset = Subset(inference.dataset, repeated, inference.dataset.split)
    timed.sizes = [median] * timed.num_images
    return timed


def _rows(results: Mapping[str, StrategyResult]) -> list[dict[str, Any]]:
    rows, before = [], None
    for name, result in results.items():
        row = {
            "strategy": name,
            "mean_iou": _mean_iou(result.overlaps.sum(axis=0)),
            "boundary_f_score": _known(_boundary_f_score(result.boundary.sum(axis=0))),
            "seconds_per_image": result.seconds_per_image,
            "mean_iou_change": None,
            "boundary_f_score_change": None,
            "settings": dict(result.settings),
        }
        if before is not None:
            ious = paired_change(before.overlaps, result.overlaps, _mean_iou)
            outlines = paired_change(before.boundary, result.boundary, _boundary_f_score)
            for key, change in (("mean_iou", ious), ("boundary_f_score", outlines)):
                row[f"{key}_change"] = {
                    field: _known(value) for field, value in change._asdict().items()
                }
        rows.append(row)
        before = result
    return rows


def _mean_iou(overlaps: np.ndarray) -> float:
    """Returns the mean IoU of the classes with true or predicted pixels; NaN if there are none.

    Args:
      overlaps: [3, num_classes]; for each class, the numbers of correctly predicted pixels, of true
        pixels and of predicted pixels.
    """
    correct, true, predicted = overlaps
    union = true + predicted - correct
    occurring = union > 0
    return float((correct[occurring] / union[occurring]).mean()) if occurring.any() else math.nan


def _boundary_f_score(counts: np.ndarray) -> float:
    return BoundaryMatch(counts).f_score


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the result of `compare_strategies` as a text table, with metrics in percent."""
    width = max(len(row["strategy"]) for row in rows)
    head = ("mean IoU", "change [95 %]", "boundary F", "change [95 %]", "s/image")
    lines = [
        f"{'strategy':<{width}}  {head[0]:>8}  {head[1]:>22}  {head[2]:>10}  {head[3]:>22}  "
        f"{head[4]:>8}"
    ]
    for row in rows:
        lines.append(
            f"{row['strategy']:<{width}}  {_percent(row['mean_iou']):>8}  "
            f"{_interval(row['mean_iou_change']):>22}  {_percent(row['boundary_f_score']):>10}  "
            f"{_interval(row['boundary_f_score_change']):>22}  {row['seconds_per_image']:>8.3f}"
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _interval(change: Mapping[str, float | None] | None) -> str:
    values = [] if change is None else [change[name] for name in ("difference", "low", "high")]
    percentages = [100 * value for value in values if value is not None]
    if len(percentages) < 3:
        return ""
    difference, low, high = percentages
    return f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"
