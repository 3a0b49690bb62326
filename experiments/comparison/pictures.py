"""Pictures of a comparison page: class maps, error maps and plots, as image files in memory."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from PIL import Image

from deeplab_jax.labels import void_label, void_of
from deeplab_jax.visualize import colorize, displayed, png_bytes
from experiments.comparison.gathering import Compared, Comparison

COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")
# Maximum side of a picture in pixels. It keeps the page small enough for an e-mail.
MAX_SIDE = 420
WRONG, VOID = (214, 39, 40), (224, 224, 224)
# Maximum side of a figure in inches.
MAX_INCHES = 80.0
# Contrast, 0..1, of the gray image in error maps.
PALE = 0.35


def shown_image(image: np.ndarray) -> bytes:
    """Returns an image [H, W, C], downsampled for the page, as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(_small(displayed(image), Image.Resampling.LANCZOS)).save(
        buffer, "JPEG", quality=85
    )
    return buffer.getvalue()


def shown_classes(class_map: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Returns a class map [H, W] in class colors, downsampled for the page, as a PNG file."""
    return png_bytes(_small(colorize(class_map, palette), Image.Resampling.NEAREST))


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Returns a pale gray image with wrong pixels in red and void pixels in light gray.

    Args:
      image: uint8 or uint16 [H, W, C].
      truth: label map, uint8 or uint16 [H, W].
      prediction: class map, integers [H, W].

    Returns:
      uint8 [H, W, 3].
    """
    grey = displayed(image).mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    picture = 255 - PALE * (255 - grey)
    known = truth != void_of(truth)
    picture[known & (truth != prediction)] = WRONG
    picture[~known] = VOID
    return np.round(picture).astype(np.uint8)


def shown_errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> bytes:
    """Returns the result of `error_map`, downsampled for the page, as a PNG file."""
    return png_bytes(_small(error_map(image, truth, prediction), Image.Resampling.NEAREST))


def shown_names(comparison: Comparison) -> dict[str, tuple[int, int, int]]:
    """Returns {name: RGB color} of the classes that occur in the shown labels and predictions.

    If void occurs, it is last.
    """
    values = {
        int(value)
        for shown in comparison.shown
        for class_map in (shown.truth, *shown.predictions.values())
        for value in np.unique(class_map)
    }
    classes = enumerate(zip(comparison.class_names, comparison.palette, strict=True))
    names = {name: color for number, (name, color) in classes if number in values}
    return names | ({"void": VOID} if void_label(len(comparison.class_names)) in values else {})


def class_maps(comparison: Comparison) -> bytes:
    """Returns a picture of the true and the predicted class maps, with a legend, as a PNG file."""
    columns = ("truth", *comparison.models)
    height, width = comparison.shown[0].truth.shape
    size = 2.0 * len(columns), 0.6 + 2.0 * height / width * len(comparison.shown)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(comparison.shown), len(columns), squeeze=False)
    for row, shown in zip(grid, comparison.shown, strict=True):
        for axes, class_map in zip(row, (shown.truth, *shown.predictions.values()), strict=True):
            axes.imshow(colorize(class_map, comparison.palette), interpolation="nearest")
            axes.set_axis_off()
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, size=9)
    patches = [
        Patch(facecolor=np.array(color) / 255, edgecolor="#888888", label=name)
        for name, color in shown_names(comparison).items()
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=7, frameon=False, fontsize=7)
    return _png(figure)


def class_bars(comparison: Comparison) -> bytes:
    """Returns a bar chart of the IoU of each class and model, as a PNG file."""
    names = comparison.class_names
    width = 0.42 * len(names) * max(2, len(comparison.models)) / 2
    figure, axes = _figure(min(max(7.0, width), MAX_INCHES), 3.4)
    width = 0.8 / len(comparison.models)
    for number, (model, compared) in enumerate(comparison.models.items()):
        # Models may have other names for the classes; `evaluate` warns of them.
        ious = compared.metrics["per_class_iou"].values()
        places = np.arange(len(names)) + (number - (len(comparison.models) - 1) / 2) * width
        heights = [np.nan if iou is None else 100 * iou for iou in ious]
        axes.bar(places, heights, width, label=model, color=_color(number))
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")
    axes.set(ylabel="IoU, %", ylim=(0, 100))
    axes.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    return _png(figure)


def trimap_curves(models: Mapping[str, Compared]) -> bytes | None:
    """Returns a plot of mean IoU in a band around void pixels against the width of the band.

    Returns:
      Bytes of a PNG file; None if no model has such an IoU, for example because no pixel is void.
    """
    curves = {
        model: {
            int(width): 100 * value
            for width, value in (compared.metrics["trimap_mean_iou"] or {}).items()
            if value is not None
        }
        for model, compared in models.items()
    }
    if not any(curves.values()):
        return None
    figure, axes = _figure(5.2, 3.6)
    for number, (model, curve) in enumerate(curves.items()):
        axes.plot(list(curve), list(curve.values()), "o-", label=model, color=_color(number), ms=4)
    axes.set(xlabel="width of the band around void, pixels", ylabel="mean IoU in the band, %")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return _png(figure)


def speed_and_accuracy(models: Mapping[str, Compared]) -> bytes:
    """Returns a plot of mean IoU against time per image, as a PNG file.

    The area of a point grows with the number of parameters.
    """
    figure, axes = _figure(5.2, 3.6)
    largest = max(compared.parameters for compared in models.values())
    for number, (model, compared) in enumerate(models.items()):
        place = 1000 * compared.seconds_per_image, 100 * compared.metrics["mean_iou"]
        area = 30 + 270 * compared.parameters / largest
        axes.scatter(*place, s=area, color=_color(number), alpha=0.8, linewidth=0)
        axes.annotate(model, place, xytext=(8, 6), textcoords="offset points")
    axes.set(xlabel="ms per image", ylabel="mean IoU, %")
    axes.margins(0.2)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    return _png(figure)


def confusion(compared: Compared, class_names: Sequence[str], title: str) -> bytes:
    """Returns a plot of a confusion matrix, as a PNG file.

    Rows are true classes, and values are percentages of the pixels of the row.
    """
    counts = np.asarray(compared.metrics["confusion_matrix"])
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(2.2 + 0.3 * len(class_names), MAX_INCHES)
    figure, axes = _figure(side, side)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=60, ha="right", rotation_mode="anchor", size=7)
    axes.set_yticks(ticks, class_names, size=7)
    axes.set(xlabel="prediction", ylabel="truth", title=title)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 1:
            color = "white" if value > 55 else "black"
            axes.text(column, row, f"{value:.0f}", color=color, ha="center", va="center", size=6)
    return _png(figure)


def _figure(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _png(figure: Figure) -> bytes:
    # A pair of dollar signs in the name of a class or a model does not start a formula.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _small(picture: np.ndarray, how: Image.Resampling) -> np.ndarray:
    height, width = picture.shape[:2]
    share = min(1.0, MAX_SIDE / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(picture).resize(size, how))
