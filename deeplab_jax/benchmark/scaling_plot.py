"""The picture of `scaling`: time an image against pixels and against batch size."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_jax.benchmark.scaling import Point, exponents, series
from deeplab_jax.files import replacing

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")
PANELS = {"pixels": "pixels of an image", "batch_size": "images at once"}


def write_plot(path: Path, points: Sequence[Point], title: str) -> None:
    """Writes a PNG; axes of time against pixels are logarithmic, their exponents in the legend.

    Args:
      path: of the file, which appears whole or not at all.
      points: of `measure_scaling`.
      title: over the panels.
    """
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    fitted = exponents(points)
    for axes, against in zip(figure.subplots(1, 2), PANELS, strict=True):
        for color, (output_stride, line) in zip(COLORS, series(points, against), strict=False):
            label = f"output stride {output_stride}"
            if against == "pixels" and output_stride in fitted:
                label += f", ~ pixels^{fitted[output_stride]:.2f}"
            positions = [getattr(point, against) for point in line]
            seconds = [point.seconds_per_image for point in line]
            axes.loglog(positions, seconds, color=color, label=label, marker="o", markersize=3)
        _finish(axes, against)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _finish(axes: Axes, against: str) -> None:
    axes.set(xlabel=PANELS[against], ylabel="seconds an image")
    if against == "batch_size":
        # Few and near each other: each has its own number, and time starts at 0.
        values = sorted({value for line in axes.lines for value in line.get_xdata()})
        axes.set_xscale("linear")
        axes.set_yscale("linear")
        axes.set(xticks=values, ylim=(0, None))
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
