"""Plots of training curves, confusion matrices and reliability diagrams."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deeplab_jax.files import replacing

# Maximum number of classes for which each cell shows a percentage.
MAX_ANNOTATED = 30
# Maximum number of classes for which the axes show names; with more, they show class indices.
MAX_NAMED = 255


def write_confusion_matrix(path: Path, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes a plot of a confusion matrix as a PNG, in percent of the pixels of each true class.

    Args:
      path: output file, written atomically.
      counts: number of pixels, int [num_classes, num_predicted]. Rows are true classes, columns
        predicted classes. If the classes to score were given, one more column contains the
        predictions that belong to none of them.
      class_names: name of each column; the first `num_classes` names also belong to the rows.
    """
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(20.0, 3.0 + 0.45 * len(class_names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    if len(class_names) <= MAX_NAMED:
        ticks = range(len(class_names))
        # A pair of dollar signs in a name does not start a formula.
        turned: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(ticks, class_names, parse_math=False, **turned)
        axes.set_yticks(ticks[: len(counts)], class_names[: len(counts)], parse_math=False)
    axes.tick_params(length=0, labelsize="small" if len(class_names) <= MAX_ANNOTATED else 4)
    axes.set(xlabel="prediction", ylabel="truth", title="fraction of each true class, %")
    axes.spines[:].set_visible(False)
    if len(class_names) <= MAX_ANNOTATED:
        for (row, column), value in np.ndenumerate(percent):
            if value >= 0.5:
                color = "white" if value > 55 else "black"
                axes.text(
                    column, row, f"{value:.0f}", color=color, ha="center", va="center", size=7
                )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def write_reliability_diagram(
    path: Path, bins: Sequence[Mapping[str, Any]], error: float | None
) -> None:
    """Writes a reliability diagram as a PNG: accuracy and number of pixels by confidence.

    Args:
      path: output file, written atomically.
      bins: a dictionary for each bin of the confidence. Its keys are `from` and `to` (edges of the
        bin), `pixels` (number of pixels), `confidence` (mean confidence) and `accuracy`. The last
        two are None in empty bins.
      error: expected calibration error, shown in the title; None if it is undefined.
    """
    figure = Figure(figsize=(4.6, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lefts, width = [row["from"] for row in bins], 1 / len(bins)
    accuracy = [row["accuracy"] or 0 for row in bins]
    style = {"width": width, "align": "edge", "edgecolor": "white", "linewidth": 0.6}
    upper.bar(lefts, accuracy, color=COLORS["training"], label="accuracy", **style)
    known = [row for row in bins if row["pixels"]]
    points = [[row[key] for row in known] for key in ("confidence", "accuracy")]
    upper.plot(*points, "o", color="black", markersize=3.5, label="mean of each bin")
    upper.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="perfect calibration")
    shown = "" if error is None else f"ECE {error:.4f}, {len(bins)} bins"
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=shown)
    upper.legend(frameon=False, fontsize="small")
    total = max(1, sum(row["pixels"] for row in bins))
    shares = [100 * row["pixels"] / total for row in bins]
    lower.bar(lefts, shares, color=COLORS["validation"], **style)
    lower.set(xlabel="confidence", ylabel="pixels, %")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


# Quantities that are plotted, in this order, and the labels of their axes.
PANELS = {
    "loss": "loss",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "learning_rate": "learning rate",
}
COLORS = {"training": "#4477aa", "validation": "#cc6677"}
# A loss curve with more than DENSE points is drawn faintly below its running mean. On either side
# of each point, the window of the mean contains WINDOW_SHARE of all points.
DENSE, WINDOW_SHARE = 60, 1 / 20

Series = tuple[np.ndarray, np.ndarray]


def write_training_curves(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Writes a PNG with plots of loss, mean IoU, pixel accuracy and learning rate by step.

    Args:
      path: output file, written atomically.
      rows: parsed lines of `metrics.jsonl`, each with `step` and any scalars. The names of
        validation scalars start with `validation_`. Scalars other than the four quantities are
        ignored.
    """
    panels = _panels(rows)
    figure = Figure(figsize=(4.6 * max(1, len(panels)), 3.6), layout="constrained")
    for axes, (quantity, lines) in zip(
        figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels.items(), strict=False
    ):
        _draw_panel(axes, quantity, lines)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _panels(rows: Iterable[Mapping[str, float]]) -> dict[str, dict[str, Series]]:
    """Returns the training curve and the validation curve of each plotted quantity.

    Args:
      rows: parsed lines of `metrics.jsonl`, each with `step` and any scalars.

    Returns:
      {quantity: {"training" or "validation": (steps, values)}}.
    """
    points: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in row.items():
            quantity = name.removeprefix("validation_")
            source = "training" if quantity == name else "validation"
            points[quantity][source].append((row["step"], value))
    return {
        quantity: {source: tuple(np.array(line, float).T) for source, line in lines.items()}
        for quantity, lines in ((name, points[name]) for name in PANELS)
        if lines
    }


def _draw_panel(axes: Axes, quantity: str, lines: Mapping[str, Series]) -> None:
    for source, (steps, values) in lines.items():
        color = COLORS[source]
        if quantity == "loss" and len(steps) > DENSE:
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.7)
            values = _running_mean(values, int(len(values) * WINDOW_SHARE))
        marker = "" if len(steps) > DENSE else "o"
        axes.plot(steps, values, color=color, label=source, marker=marker, markersize=2.5)
    axes.set(xlabel="step", ylabel=PANELS[quantity])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if quantity != "learning_rate":
        axes.legend(frameon=False)


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Replaces each value by the mean of itself and up to `window` neighbors on either side."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - window, 0), np.minimum(index + window + 1, len(values))
    return (total[last] - total[first]) / (last - first)
