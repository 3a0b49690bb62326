"""Time of a forward pass by image size, batch size and output stride."""

import csv
import dataclasses
import itertools
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import split_network
from deeplab_jax.files import replacing
from deeplab_jax.models import create_model
from deeplab_jax.reporter import Reporter


@dataclasses.dataclass(frozen=True)
class Point:
    """Measurement of forward passes at one output stride, image size and batch size.

    Attributes:
      output_stride: output stride of the network.
      height, width: size of the images in pixels.
      batch_size: number of images per batch.
      seconds_per_image: median time of a batch divided by the batch size.
      planned_bytes: compiler's estimate of the memory in bytes, including weights; None: unknown.
      compile_seconds: compile time in seconds; None: unknown.
    """

    output_stride: int
    height: int
    width: int
    batch_size: int
    seconds_per_image: float
    planned_bytes: int | None
    compile_seconds: float | None

    @property
    def pixels(self) -> int:
        """Number of pixels of an image."""
        return self.height * self.width


def measure_scaling(
    network: str,
    sizes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int],
    output_strides: Sequence[int],
    *,
    repetitions: int,
    reporter: Reporter,
) -> list[Point]:
    """Times forward passes at several image sizes, batch sizes and output strides.

    At each output stride, every image size is timed with the batch size `batch_sizes[0]`, and every
    batch size with the image size `sizes[0]`. Other combinations are not timed. Each combination is
    compiled once and has one warm-up run.

    Args:
      network: ARCHITECTURE or ARCHITECTURE/BACKBONE; its variables are random.
      sizes: image sizes, (height, width) in pixels.
      batch_sizes: numbers of images per batch.
      output_strides: output strides of the network.
      repetitions: number of timed runs of each combination; the results are their medians.
      reporter: receives a message for each measurement.

    Raises:
      DeepLabError: there is no such network, or it does not support an output stride.
    """
    shapes = [(batch_sizes[0], size) for size in sizes]
    shapes += [(batch_size, sizes[0]) for batch_size in batch_sizes[1:]]
    architecture, keywords = split_network(network)
    points = []
    for output_stride in output_strides:
        model = create_model(architecture, output_stride=output_stride, **keywords)
        variables = ours.made_variables(model)
        for batch_size, size in shapes:
            height, width = size
            shape = f"batch {batch_size}, {height}x{width} pixels"
            reporter.message(f"timing output stride {output_stride}, {shape}")
            image = ours.random_batch(batch_size, size, 2)["image"]
            program = ours.forward(model, variables, image)
            seconds = program.median_seconds(repetitions) / batch_size
            points.append(
                Point(
                    output_stride=output_stride,
                    height=height,
                    width=width,
                    batch_size=batch_size,
                    seconds_per_image=seconds,
                    planned_bytes=program.peak_bytes,
                    compile_seconds=program.compile_seconds,
                )
            )
    return points


def series(points: Sequence[Point], against: str) -> Iterator[tuple[int, list[Point]]]:
    """Yields, for each output stride, the measurements in which only one quantity varies.

    Args:
      points: measurements, returned by `measure_scaling`.
      against: quantity that varies, `pixels` (pixels per image) or `batch_size`. The other quantity
        is fixed at its value in `points[0]`.

    Yields:
      An output stride, and its measurements, sorted by the quantity that varies.
    """
    fixed = "batch_size" if against == "pixels" else "pixels"
    for output_stride in dict.fromkeys(point.output_stride for point in points):
        kept = (output_stride, getattr(points[0], fixed))
        chosen = [p for p in points if (p.output_stride, getattr(p, fixed)) == kept]
        yield output_stride, sorted(chosen, key=operator.attrgetter(against))


def exponents(points: Sequence[Point]) -> dict[int, float]:
    """Fits time ∝ pixels^b for each output stride, and returns {output stride: b}.

    The line is fitted to the logarithms of pixels and time by least squares. Output strides that
    were measured at only one image size are left out.
    """
    found = {}
    for output_stride, line in series(points, "pixels"):
        if len(line) > 1:
            pixels, seconds = np.log([(p.pixels, p.seconds_per_image) for p in line]).T
            found[output_stride] = float(np.polyfit(pixels, seconds, 1)[0])
    return found


def table(points: Sequence[Point]) -> list[str]:
    """Returns the lines of a text table: a header and one line per point."""
    lines = ["output stride   batch         size   ms per image  planned MB"]
    for point in points:
        size = f"{point.height}x{point.width}"
        memory = "-" if point.planned_bytes is None else f"{point.planned_bytes / 1e6:.0f}"
        lines.append(
            f"{point.output_stride:>13}{point.batch_size:>8}{size:>13}"
            f"{1e3 * point.seconds_per_image:>14.1f}{memory:>13}"
        )
    return lines


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """Writes a CSV file with one row per point, atomically."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Point)])
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, points))


COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")
PANELS = {"pixels": "pixels per image", "batch_size": "images per batch"}


def write_plot(path: Path, points: Sequence[Point], title: str) -> None:
    """Writes a PNG plot of time against image size and against batch size.

    The plot against image size has logarithmic axes, and its legend shows the fitted exponents.

    Args:
      path: path of the file, which is written atomically.
      points: result of `measure_scaling`.
      title: title of the figure.
    """
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    fitted = exponents(points)
    for axes, against in zip(figure.subplots(1, 2), PANELS, strict=True):
        lines = zip(itertools.cycle(COLORS), series(points, against), strict=False)
        for color, (output_stride, line) in lines:
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
    axes.set(xlabel=PANELS[against], ylabel="seconds per image")
    if against == "batch_size":
        # There are few batch sizes: each gets a tick, and the time axis starts at 0.
        values = sorted({x for line in axes.lines for x in np.asarray(line.get_xdata()).tolist()})
        axes.set(xscale="linear", yscale="linear", xticks=values, ylim=(0, None))
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
