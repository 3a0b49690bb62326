"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_jax.files import replacing

# Beyond so many classes the percentages would not be readable.
MAX_ANNOTATED = 30
# Beyond this number of classes names would overlap; the axes show numbers of classes.
MAX_NAMED = 255


def write_confusion_matrix(path: Path, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes a PNG of which classes are taken for which, in per cent of each true class.

    Args:
      path: of the file, which appears whole or not at all.
      counts: int [num_classes, num_classes], truth in rows.
      class_names: one a class.
    """
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(20.0, 3.0 + 0.45 * len(class_names))
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    if len(class_names) <= MAX_NAMED:
        ticks = range(len(class_names))
        axes.set_xticks(ticks, class_names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, class_names)
    axes.tick_params(length=0, labelsize="small" if len(class_names) <= MAX_ANNOTATED else 4)
    axes.set(xlabel="prediction", ylabel="truth", title="share of each true class, %")
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
