"""Time of a forward pass against the size of images, their number and the output stride."""

import csv
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import Contender, split_network
from deeplab_jax.files import replacing
from deeplab_jax.models import create_model
from deeplab_jax.reporter import Reporter


@dataclasses.dataclass(frozen=True)
class Point:
    """One forward pass that was measured.

    Attributes:
      output_stride: of the network.
      height, width: of the images in pixels.
      batch_size: images at once.
      seconds_per_image: median of the time, over the batch size.
      planned_bytes: memory of the program, weights included; None: not known.
      compile_seconds: from nothing to ready.
    """

    output_stride: int
    height: int
    width: int
    batch_size: int
    seconds_per_image: float
    planned_bytes: int | None
    compile_seconds: float

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
    """Measures every size with the first batch size, and every batch size with the first size.

    Each is compiled once and run once before it counts.

    Args:
      network: ARCHITECTURE or ARCHITECTURE/BACKBONE; with fresh variables.
      sizes: (height, width) of images in pixels.
      batch_sizes: images at once.
      output_strides: each measured with all of these.
      repetitions: the median of so many runs counts.
      reporter: hears of each one.

    Raises:
      DeepLabError: there is no such network, or it cannot have that output stride.
    """
    shapes = [(batch_sizes[0], size) for size in sizes]
    shapes += [(batch_size, sizes[0]) for batch_size in batch_sizes[1:]]
    architecture, keywords = split_network(network)
    points = []
    for output_stride in output_strides:
        model = create_model(architecture, output_stride=output_stride, **keywords)
        variables = ours.made_variables(model)
        for batch_size, size in shapes:
            name = f"output stride {output_stride}, {batch_size}x{size[0]}x{size[1]}"
            reporter.message(name)
            image = ours.random_batch(batch_size, size, 2)["image"]
            contender = ours.forward(model, variables, image)
            seconds = _median_seconds(contender, repetitions) / batch_size
            points.append(
                Point(
                    output_stride,
                    *size,
                    batch_size,
                    seconds,
                    contender.peak_bytes,
                    contender.compile_seconds,
                )
            )
    return points


def _median_seconds(contender: Contender, repetitions: int) -> float:
    contender.run()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        contender.run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def series(points: Sequence[Point], against: str) -> Iterator[tuple[int, list[Point]]]:
    """Yields each output stride and its points, in which only one quantity changes.

    Args:
      points: of `measure_scaling`.
      against: `pixels` or `batch_size`; the other is that of the first point.
    """
    fixed = "batch_size" if against == "pixels" else "pixels"
    for output_stride in dict.fromkeys(point.output_stride for point in points):
        chosen = [
            point
            for point in points
            if point.output_stride == output_stride
            and getattr(point, fixed) == getattr(points[0], fixed)
        ]
        yield output_stride, sorted(chosen, key=lambda point: getattr(point, against))


def exponents(points: Sequence[Point]) -> dict[int, float]:
    """Returns for each output stride the b of the fit time ~ pixels^b, by least squares in logs.

    Output strides with a single size are left out.
    """
    found = {}
    for output_stride, line in series(points, "pixels"):
        if len(line) > 1:
            pixels = np.log([point.pixels for point in line])
            seconds = np.log([point.seconds_per_image for point in line])
            found[output_stride] = float(np.polyfit(pixels, seconds, 1)[0])
    return found


def table(points: Sequence[Point]) -> list[str]:
    """Returns lines of aligned columns."""
    lines = ["output stride   batch         size   ms an image   planned MB"]
    for point in points:
        size = f"{point.height}x{point.width}"
        memory = "-" if point.planned_bytes is None else f"{point.planned_bytes / 1e6:.0f}"
        lines.append(
            f"{point.output_stride:>13}{point.batch_size:>8}{size:>13}"
            f"{1e3 * point.seconds_per_image:>14.1f}{memory:>13}"
        )
    return lines


def write_csv(path: Path, points: Sequence[Point]) -> None:
    """Writes a row a point, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Point)])
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, points))


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
