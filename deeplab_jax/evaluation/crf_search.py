"""Grid search for the parameters of the dense CRF."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.crf import CRFParameters, check_parameters, dense_crf_of_weights
from deeplab_jax.data import Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.evaluate import check_labelled, describe_settings, warn_of_other_names
from deeplab_jax.evaluation.passes import (
    EvaluationSettings,
    Inference,
    check_segments,
    make_inference,
    sum_over_hosts,
)
from deeplab_jax.evaluation.results import image_scores
from deeplab_jax.files import as_path, check_output_file, write_text
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.options import DEFAULT_CRF
from deeplab_jax.inference.refinement import find_parameters
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.reporter import LoggingReporter, Reporter

# Number of images that the papers use for the search.
DEFAULT_LIMIT = 100
# Classes whose probability is below this value in all pixels of an image are excluded from the CRF
# of this image, because the time of a CRF is proportional to the number of classes.
LEAST_PROBABILITY = 1e-3
# Parameters that are equal at all points of the grid: w2 = 3, σγ = 3 and 10 iterations. The three
# parameters that are given here are replaced at each point.
SMOOTHNESS = CRFParameters(1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class CRFGrid:
    """Grid of CRF parameters; the defaults are those of DeepLab v2, section 4.1.

    Attributes:
      bilateral_weights: values of w1, the weight of the bilateral kernel.
      bilateral_position_stds: values of σα, the standard deviation of the bilateral kernel in
        position, in pixels.
      bilateral_color_stds: values of σβ, the standard deviation of the bilateral kernel in color,
        in levels of 0..255.
      fixed: values of all other parameters.
    """

    bilateral_weights: Sequence[float] = (3.0, 4.0, 5.0, 6.0)
    bilateral_position_stds: Sequence[float] = tuple(float(std) for std in range(30, 101, 10))
    bilateral_color_stds: Sequence[float] = (3.0, 4.0, 5.0, 6.0)
    fixed: CRFParameters = SMOOTHNESS

    def points(self) -> list[CRFParameters]:
        """Returns all points of the grid, that is, all combinations of parameters.

        The bilateral weight varies fastest, so successive points have equal standard deviations and
        can use the same permutohedral lattice.
        """
        spreads = itertools.product(self.bilateral_position_stds, self.bilateral_color_stds)
        return [
            dataclasses.replace(
                self.fixed,
                bilateral_weight=weight,
                bilateral_position_std=position,
                bilateral_color_std=color,
            )
            for position, color in spreads
            for weight in self.bilateral_weights
        ]


def search_crf(
    predictor: Predictor,
    dataset: Dataset,
    grid: CRFGrid | None = None,
    *,
    options: InferenceOptions | None = None,
    limit: int | None = DEFAULT_LIMIT,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Searches a grid for the CRF parameters with the highest mean IoU; predicts each image once.

    Args:
      predictor: model to apply.
      dataset: split with the classes of the model. Do not use the split of the final evaluation.
      grid: points to try, that is, combinations of parameters (default: those of DeepLab v2).
      options: inference options, whose CRF is ignored (default: those of the predictor).
      limit: maximum number of images, from the start of the split (default: 100).
      output: JSON file for the result, readable by `read_crf_parameters` and `--crf=FILE.json`.
      reporter: receives progress events (default: the logger).
      **settings: fields of `EvaluationSettings`, such as size, batch_size, mesh and workers.

    Returns:
      A dictionary:
      - `parameters`, `mean_iou`: values at the best point; in a tie, at the first one in the grid.
      - `table`: list with the parameters and the mean IoU of every point, best first.
      - `mean_iou_without_crf`: mean IoU of the predictions without a CRF.
      - `num_images`, `settings`: number of evaluated images, and all settings except the CRF.

    Raises:
      DeepLabError: the grid is empty or has invalid values, the model does not take 8-bit RGB,
        `output` cannot be written, all pixels are void, an image is damaged, the outputs of the
        network are not finite, or the numbers of classes of model and dataset differ.
    """
    reporter = reporter or LoggingReporter()
    points = (grid or CRFGrid()).points()
    if not points:
        raise DeepLabError("the CRF grid is empty; give at least one value for each field")
    for point in points:
        check_parameters(point)
    check_segments(predictor)
    options = dataclasses.replace(options or predictor.options, crf=DEFAULT_CRF)
    find_parameters(options, predictor.model.architecture)  # Refuses images that are not RGB.
    predictor = predictor.with_options(dataclasses.replace(options, crf=None))
    chosen = EvaluationSettings(limit=limit, **settings)
    inference = make_inference(predictor, dataset, chosen)
    warn_of_other_names(predictor, dataset, reporter)
    # The search takes long, so its result must not be lost.
    if output is not None and jax.process_index() == 0:
        check_output_file(as_path(output))
    counts = sum_over_hosts(_count(inference, predictor, points, reporter))
    check_labelled(counts, inference)
    described = describe_settings(predictor, inference, chosen)
    del described["crf"]
    found = _summary(points, counts) | {"num_images": inference.num_images, "settings": described}
    if output is not None and jax.process_index() == 0:
        write_text(as_path(output), json.dumps(found, indent=2, allow_nan=False) + "\n")
    return found


def _count(
    inference: Inference,
    predictor: Predictor,
    points: Sequence[CRFParameters],
    reporter: Reporter,
) -> np.ndarray:
    """Returns confusion matrices over the images of this host, int64 [1 + points, C, C].

    The first matrix is that of predictions without a CRF. Matrix 1 + i is that of predictions that
    were refined with the CRF parameters `points[i]`.
    """
    classes = len(predictor.class_names)
    counts = np.zeros((1 + len(points), classes, classes), np.int64)
    total = -(-inference.num_images // jax.process_count())
    scored = image_scores(inference, predictor, Reporter())
    for _, logits, image, label in reporter.track(scored, "searching CRF parameters, image", total):
        maps = itertools.chain([logits.argmax(axis=-1)], _refined_maps(logits, image, points))
        for position, class_map in enumerate(maps):
            counts[position] += ConfusionMatrix.from_labels(label, class_map, classes).counts
    return counts


def _refined_maps(
    logits: np.ndarray, image: np.ndarray, points: Sequence[CRFParameters]
) -> Iterator[np.ndarray]:
    """Yields the class map of one image for each of several combinations of CRF parameters.

    Args:
      logits: logits of all classes, [H, W, C].
      image: uint8 [H, W, 3], RGB.
      points: combinations of CRF parameters.

    Yields:
      Class map [H, W] after refinement with each element of `points`, in order.
    """
    present = likely_classes(logits)
    scores, colors = jnp.asarray(logits[..., present]), jnp.asarray(image)
    same_lattice = itertools.groupby(points, key=_without_weight)
    for parameters, group in same_lattice:
        weights = [point.bilateral_weight for point in group]
        for probabilities in dense_crf_of_weights(scores, colors, parameters, weights):
            yield present[np.asarray(probabilities).argmax(axis=-1)]


def _without_weight(point: CRFParameters) -> CRFParameters:
    return dataclasses.replace(point, bilateral_weight=0.0)


def likely_classes(logits: np.ndarray) -> np.ndarray:
    """Returns the indices of the classes whose probability is at least 0.001 in some pixel.

    The search refines only the logits of these classes, which reduces its time.

    Args:
      logits: logits [H, W, C].
    """
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = odds / odds.sum(axis=-1, keepdims=True)
    return np.flatnonzero(probabilities.max(axis=(0, 1)) >= LEAST_PROBABILITY)


def _summary(points: Sequence[CRFParameters], counts: np.ndarray) -> dict[str, Any]:
    without, *ious = (ConfusionMatrix(one).mean_iou for one in counts)
    rows = [point.describe() | {"mean_iou": iou} for point, iou in zip(points, ious, strict=True)]
    rows.sort(key=lambda row: -row["mean_iou"])
    best = dict(rows[0])
    return {
        "mean_iou": best.pop("mean_iou"),
        "mean_iou_without_crf": without,
        "parameters": best,
        "table": rows,
    }


def crf_search_table(found: dict[str, Any], num_rows: int | None = None) -> str:
    """Returns the result of `search_crf` as a text table in percent, sorted by mean IoU.

    Args:
      found: result of `search_crf`.
      num_rows: maximum number of points in the table (default: all).
    """
    lines = [f"{'w1':>6}  {'σα':>6}  {'σβ':>6}  {'mean IoU':>8}  {'change':>7}"]
    without = found["mean_iou_without_crf"]
    for row in found["table"][:num_rows]:
        fields = ("bilateral_weight", "bilateral_position_std", "bilateral_color_std")
        numbers = "  ".join(f"{row[field]:>6g}" for field in fields)
        change = 100 * (row["mean_iou"] - without)
        lines.append(f"{numbers}  {100 * row['mean_iou']:>8.2f}  {change:>+7.2f}")
    return "\n".join([f"mean IoU without a CRF: {100 * without:.2f}", "", *lines])
