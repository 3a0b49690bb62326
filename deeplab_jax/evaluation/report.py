"""Evaluation metrics of a split as a dictionary, as text and as files."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from deeplab_jax.evaluation.passes import sum_over_hosts
from deeplab_jax.evaluation.results import SheetRow
from deeplab_jax.files import write_text
from deeplab_jax.labels import void_label
from deeplab_jax.metrics import (
    BoundaryMatch,
    CalibrationCounts,
    ConfusionMatrix,
    ErrorDetection,
    PrecisionRecall,
    TrimapConfusion,
)
from deeplab_jax.visualize import (
    Panel,
    contact_sheet,
    uncertainty_sheet,
    write_confusion_matrix,
    write_picture,
    write_reliability_diagram,
)
from deeplab_jax.visualize.class_maps import Color


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentationMetrics:
    """Counts from which all metrics are computed; they can be summed over images and hosts.

    Attributes:
      confusion: confusion matrix.
      ranking: histograms for average precision.
      boundary: counts of boundary pixels.
      trimap: confusion matrices within bands around void pixels.
      calibration: sums for calibration metrics, or None.
      detection: {name of an uncertainty: its histograms over correct and over wrong pixels}.
    """

    confusion: ConfusionMatrix
    ranking: PrecisionRecall
    boundary: BoundaryMatch
    trimap: TrimapConfusion
    calibration: CalibrationCounts | None = None
    detection: Mapping[str, ErrorDetection] = dataclasses.field(default_factory=dict)

    @classmethod
    def empty(
        cls,
        num_classes: int,
        trimap_widths: Sequence[int] = (),
        calibration_bins: int | None = None,
        uncertainty: Sequence[str] = (),
    ) -> "SegmentationMetrics":
        """Returns counts that are all 0.

        Args:
          num_classes: number of classes.
          trimap_widths: widths in pixels of the bands around void pixels within which mean IoU is
            computed.
          calibration_bins: number of equal intervals of probability for the calibration metrics;
            None: no calibration metrics.
          uncertainty: names of the uncertainties to score by how well they detect wrong pixels.

        Raises:
          DeepLabError: a width or the number of bins is not an integer in 1..1000.
        """
        bins = calibration_bins
        return cls(
            ConfusionMatrix.empty(num_classes),
            PrecisionRecall.empty(num_classes),
            BoundaryMatch.empty(num_classes),
            TrimapConfusion.empty(num_classes, trimap_widths),
            None if bins is None else CalibrationCounts.empty(num_classes, bins),
            {name: ErrorDetection.empty() for name in uncertainty},
        )

    def add(
        self,
        panel: Panel,
        bins: np.ndarray,
        probabilities: np.ndarray | None = None,
        uncertainty: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> "SegmentationMetrics":
        """Returns the sum of these counts and the counts of one image.

        Args:
          panel: image, true labels and predicted labels.
          bins: uint16 [num_classes, H, W]: each class probability p as ⌊1000·p⌋, at most 999; see
            `metrics.probability_bins`.
          probabilities: exact class probabilities, [H, W, num_classes]; required for calibration
            metrics.
          uncertainty: {name of an uncertainty: its value at each pixel, [H, W]}.
        """
        valid = panel.truth != void_label(len(bins))
        wrong = (panel.truth != panel.prediction)[valid]
        detection = {
            name: histogram.add(wrong, uncertainty[name][valid])
            for name, histogram in self.detection.items()
        }
        calibration = self.calibration
        if calibration is not None:
            if probabilities is None:
                raise ValueError("calibration metrics require `probabilities`, but it is None")
            calibration = calibration.add(panel.truth, panel.prediction, probabilities)
        labels = panel.truth, panel.prediction, len(bins)
        return SegmentationMetrics(
            self.confusion.merge(ConfusionMatrix.from_labels(*labels)),
            self.ranking.merge(PrecisionRecall.from_bins(panel.truth, bins)),
            self.boundary.merge(BoundaryMatch.from_labels(*labels)),
            self.trimap.add(panel.truth, panel.prediction),
            calibration,
            detection,
        )

    def without_last(self) -> "SegmentationMetrics":
        """Returns the counts without the rows of the last class.

        Evaluation with `--classes` or `--class_map` adds this class for predictions that belong to
        none of the scored classes. No pixel has it as its true class, so it has no metrics of its
        own. Confusion matrices keep its column, where its predictions count as errors.
        """
        return SegmentationMetrics(
            ConfusionMatrix(self.confusion.counts[:-1]),
            PrecisionRecall(self.ranking.positives[:-1], self.ranking.pixels[:-1]),
            BoundaryMatch(self.boundary.counts[:-1]),
            TrimapConfusion(self.trimap.widths, self.trimap.counts[:, :-1]),
            self.calibration and self.calibration.without_last(),
            self.detection,
        )

    def over_hosts(self) -> "SegmentationMetrics":
        """Returns these counts, summed over all hosts."""
        calibration = self.calibration
        return SegmentationMetrics(
            ConfusionMatrix(sum_over_hosts(self.confusion.counts)),
            PrecisionRecall(
                sum_over_hosts(self.ranking.positives), sum_over_hosts(self.ranking.pixels)
            ),
            BoundaryMatch(sum_over_hosts(self.boundary.counts)),
            TrimapConfusion(self.trimap.widths, sum_over_hosts(self.trimap.counts)),
            calibration and CalibrationCounts(*map(sum_over_hosts, vars(calibration).values())),
            {
                name: ErrorDetection(sum_over_hosts(histogram.counts))
                for name, histogram in self.detection.items()
            },
        )


SUMMARY = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_dice": "mean Dice",
    "boundary_f_score": "boundary F-score",
}
# Metrics of probabilities. They are printed as they are, not in percent.
CALIBRATION = {
    "expected_calibration_error": "ECE",
    "classwise_calibration_error": "classwise ECE",
    "brier_score": "Brier score",
    "negative_log_likelihood": "NLL, nats",
}


def metrics_dictionary(class_names: Sequence[str], counted: SegmentationMetrics) -> dict[str, Any]:
    """Returns the metrics as a JSON-ready dictionary, with the same keys as in `metrics.json`.

    Metrics that are undefined, for example for a class without pixels, are None.
    """
    confusion = counted.confusion
    precisions = counted.ranking.per_class_average_precision
    return {
        "mean_iou": confusion.mean_iou,
        "pixel_accuracy": confusion.pixel_accuracy,
        "mean_accuracy": confusion.mean_accuracy,
        "frequency_weighted_iou": confusion.frequency_weighted_iou,
        "mean_dice": confusion.mean_dice,
        "boundary_f_score": _known(counted.boundary.f_score),
        "per_class_iou": _by_name(class_names, confusion.per_class_iou),
        "per_class_average_precision": _by_name(class_names, precisions),
        "trimap_mean_iou": _by_width(counted.trimap.mean_iou) or None,
        "confusion_matrix": confusion.counts.tolist(),
        "calibration": counted.calibration and _calibration(class_names, counted.calibration),
        "uncertainty": {
            name: {
                "auroc": _known(histogram.auroc),
                "aupr": _known(histogram.aupr),
                "error_rate": _known(histogram.error_rate),
            }
            for name, histogram in counted.detection.items()
        }
        or None,
    }


def _calibration(class_names: Sequence[str], counts: CalibrationCounts) -> dict[str, Any]:
    per_class = counts.per_class_calibration_error
    return {
        "expected_calibration_error": _known(counts.expected_calibration_error),
        "classwise_calibration_error": _known(counts.classwise_calibration_error),
        "brier_score": _known(counts.brier_score),
        "negative_log_likelihood": _known(counts.negative_log_likelihood),
        "per_class_calibration_error": _by_name(class_names, per_class),
        "reliability": counts.reliability,
    }


def table(metrics: Mapping[str, Any]) -> str:
    """Formats metrics, the result of `evaluate`, and their settings as text.

    The text begins with the metrics per class, the overall metrics and the mean IoU within trimap
    bands, in percent. Then follow the calibration metrics, the detection of errors by each
    uncertainty, the number of images and the settings.
    """
    precisions = metrics["per_class_average_precision"]
    ious = metrics["per_class_iou"]
    width = max(map(len, [*ious, *SUMMARY.values()]))
    lines = [f"{'class':<{width}}  {'IoU':>6}  {'AP':>6}"]
    for name, iou in ious.items():
        lines.append(f"{name:<{width}}  {_percent(iou)}  {_percent(precisions[name])}")
    lines += ["", *(f"{text:<{width}}  {_percent(metrics[key])}" for key, text in SUMMARY.items())]
    for pixels, value in (metrics["trimap_mean_iou"] or {}).items():
        lines.append(f"{f'trimap IoU, {pixels} px':<{width}}  {_percent(value)}")
    for key, text in CALIBRATION.items() if metrics["calibration"] else ():
        lines.append(f"{text:<{width}}  {_number(metrics['calibration'][key])}")
    for name, found in (metrics["uncertainty"] or {}).items():
        values = "  ".join(f"{key.upper()} {_number(found[key])}" for key in ("auroc", "aupr"))
        lines.append(f"{f'error detection by {name}':<{width}}  {values}")
    lines += [f"{'images':<{width}}  {metrics['num_images']:>6}", ""]
    return "\n".join([*lines, *settings_lines(metrics["settings"])])


def settings_lines(settings: Mapping[str, Any]) -> list[str]:
    """Returns a line such as "batch size: 8" for each setting that is not None or False."""
    return [
        f"{name.replace('_', ' ')}: {_shown(value)}"
        for name, value in settings.items()
        if value is not None and value is not False
    ]


def write_report(
    output: Path,
    metrics: Mapping[str, Any],
    rows: Sequence[SheetRow],
    class_names: Sequence[str],
    palette: Sequence[Color],
) -> None:
    """Writes `metrics.json` and pictures of the metrics, each file atomically.

    The pictures are `confusion_matrix.png` and `contact_sheet.png`. Calibration metrics add
    `reliability.png`, and uncertainties add `uncertainty.png`.

    Args:
      output: directory, created if missing.
      metrics: result of `evaluate`.
      rows: images of the contact sheet, at least one.
      class_names: name of each class. With `--classes` or `--class_map`, the last name is that of
        the class added for predictions that belong to no scored class.
      palette: color of each class, RGB 0..255.
    """
    write_text(output / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    counts = np.asarray(metrics["confusion_matrix"])
    write_confusion_matrix(output / "confusion_matrix.png", counts, class_names)
    panels = [row.panel for row in rows]
    write_picture(output / "contact_sheet.png", contact_sheet(panels, class_names, palette))
    if metrics["uncertainty"]:
        maps = [row.uncertainty for row in rows]
        write_picture(output / "uncertainty.png", uncertainty_sheet(panels, maps))
    if calibration := metrics["calibration"]:
        error = calibration["expected_calibration_error"]
        write_reliability_diagram(output / "reliability.png", calibration["reliability"], error)


def _by_name(class_names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return dict(zip(class_names, map(_known, values.tolist()), strict=True))


def _by_width(values: Mapping[int, float]) -> dict[str, float | None]:
    # Keys in JSON are strings.
    return {str(width): _known(value) for width, value in values.items()}


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if value is True:
        return "yes"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    return f"{'–':>6}" if value is None else f"{value:6.4f}"


def _percent(value: float | None) -> str:
    return f"{'–':>6}" if value is None else f"{100 * value:6.2f}"
