"""Curves of a training run."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_jax.files import replacing

# Quantities that have a panel, in this order, and what its axis says.
PANELS = {
    "loss": "loss",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "learning_rate": "learning rate",
}
COLORS = {"training": "#4477aa", "validation": "#cc6677"}
# A loss logged more often than this is drawn faint, with its running mean over it.
DENSE, WINDOW_SHARE = 60, 1 / 20

Series = tuple[np.ndarray, np.ndarray]


def write_training_curves(path: Path, rows: Iterable[Mapping[str, float]], title: str = "") -> None:
    """Writes a PNG with a panel each for loss, mean IoU, pixel accuracy and learning rate.

    Args:
      path: of the file, which appears whole or not at all.
      rows: as in `metrics.jsonl`: `step` and any scalars. Those of training are bare, those of
        validation begin with `validation_`; of other quantities nothing is drawn.
      title: over the panels.
    """
    panels = _panels(rows)
    figure = Figure(figsize=(4.6 * max(1, len(panels)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    for axes, (quantity, lines) in zip(
        figure.subplots(1, max(1, len(panels)), squeeze=False)[0], panels.items(), strict=False
    ):
        _draw_panel(axes, quantity, lines)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _panels(rows: Iterable[Mapping[str, float]]) -> dict[str, dict[str, Series]]:
    """Returns {quantity: {what it is of: (steps, values)}} of the quantities that have a panel."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in PANELS}
    for row in rows:
        for name, value in row.items():
            source, quantity = _source_and_quantity(name)
            if quantity in points:
                points[quantity].setdefault(source, []).append((row["step"], value))
    return {
        quantity: {source: tuple(np.array(line, float).T) for source, line in lines.items()}
        for quantity, lines in points.items()
        if lines
    }


def _source_and_quantity(name: str) -> tuple[str, str]:
    bare = name.removeprefix("validation_")
    return ("training" if bare == name else "validation"), bare


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
    """Returns the mean of up to `window` values on either side; float64 [n]."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first, last = np.maximum(index - window, 0), np.minimum(index + window + 1, len(values))
    return (total[last] - total[first]) / (last - first)
