"""Draws the block diagrams of docs/explanation/theory.md: `python docs/draw_networks.py`."""

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

COLORS = {
    "data": ("#eeeeee", "input or output"),
    "conv": ("#cfe2f3", "standard convolution"),
    "atrous": ("#fbd5a5", "atrous convolution"),
    "resize": ("#d5ead0", "pooling or resizing"),
    "join": ("#fff3b0", "joining"),
    "crf": ("#e3d4ee", "fully connected CRF"),
}
LINES: dict[str, Any] = {"color": "#333333", "linewidth": 1}
ARROW = LINES | {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
# Inches: from column to column and row to row, a box's width, a line's height, the decoder's level.
COLUMN, ROW, WIDTH, LINE, DECODER = 1.34, 0.56, 1.12, 0.15, -2.06


class Network(NamedTuple):
    """Block diagram of a network: a title, and one or two rows of boxes.

    A row is written as `kind: text > kind: text > …`, with an arrow for each `>`. `|` separates
    parallel boxes of a column, and ` / ` separates lines of a text. A column without text is empty.
    If a column has boxes in both rows, an arrow leads from the upper to the lower row.
    """

    title: str
    row: str
    decoder: str = ""


ASPP = """resize: image pooling / 1×1, 256 | conv: 1×1, 256 | atrous: 3×3, 256 / rate 6
    | atrous: 3×3, 256 / rate 12 | atrous: 3×3, 256 / rate 18"""
NETWORKS = {
    "deeplab_v1": Network(
        "DeepLab v1: VGG-16 at output stride 8, LargeFOV, fully connected CRF",
        """data: image > conv: VGG-16 / conv1 – conv3 / to stride 8
        > conv: conv4 / its pooling has / stride 1
        > atrous: conv5, rate 2 / its pooling has / stride 1 > atrous: fc6 / 3×3, 1024 / rate 12
        > conv: fc7: 1×1, 1024 / fc8: 1×1, / classes > resize: bilinear / × 8
        > crf: 10 steps of / mean field > data: class map""",
    ),
    "deeplab_v2": Network(
        "DeepLab v2: ResNet-101 at output stride 8, ASPP by sum, maximum over scales, CRF",
        """data: image at scales / 1, 0.75, 0.5 > conv: ResNet-101 / to block2 / stride 8
        > atrous: block3, rate 2 / block4, rate 4 > atrous: 3×3, classes / rate 6
        | atrous: 3×3, classes / rate 12 | atrous: 3×3, classes / rate 18
        | atrous: 3×3, classes / rate 24 > join: sum > join: maximum over / the scales
        > resize: bilinear / × 8 > crf: 10 steps of / mean field > data: class map""",
    ),
    "deeplab_v3": Network(
        "DeepLab v3: ResNet at output stride 16, ASPP by concatenation with image pooling",
        f"""data: image > conv: ResNet / to block3 / stride 16
        > atrous: block4 / multi-grid: / rates 2, 4, 8 > {ASPP}
        > join: concatenate / 1280 > conv: projection / 1×1, 256 / dropout > conv: 1×1, classes
        > resize: bilinear / × 16 > data: class map""",
    ),
    "deeplab_v3plus": Network(
        "DeepLab v3+: DeepLab v3 as encoder (above), decoder with low-level features (below)",
        f"""data: image > conv: backbone / to stride 4
        > atrous: backbone / to stride 16, its / end at rate 2 > {ASPP}
        > join: concatenate / 1×1, 256 / dropout > resize: bilinear / to stride 4""",
        """> conv: low-level / 1×1, 48 > > > > join: concatenate / 304 > conv: 3×3, 256 / 3×3, 256
        > conv: 1×1, classes / bilinear × 4 > data: class map""",
    ),
}


class Box(NamedTuple):
    """A box of a diagram: its kind (a key of COLORS), its text, and its center in inches."""

    kind: str
    text: str
    x: float
    y: float

    def side(self, right: int = 0, up: int = 0) -> tuple[float, float]:
        """Returns the middle of a side, selected by `right` (−1: left) or `up` (−1: bottom)."""
        height = 0.14 + LINE * len(self.text.splitlines())
        return self.x + right * WIDTH / 2, self.y + up * height / 2


def place(row: str, level: float) -> Iterator[list[Box]]:
    """Yields the boxes of each column of a row; the middle of the row is `level` inches high."""
    for column, step in enumerate(row.split(">")):
        parts = [part.strip().partition(": ") for part in step.split("|") if part.strip()]
        top = level + (len(parts) - 1) / 2 * ROW
        yield [
            Box(kind, text.replace(" / ", "\n"), column * COLUMN, top - number * ROW)
            for number, (kind, _, text) in enumerate(parts)
        ]


def draw(network: Network, path: Path) -> None:
    """Writes the block diagram of a network as a PNG file."""
    rows = [list(place(network.row, 0)), list(place(network.decoder, DECODER))]
    boxes = [box for row in rows for column in row for box in column]
    left, right = boxes[0].side(right=-1)[0] - 0.1, boxes[-1].side(right=1)[0] + 0.1
    below = min(box.side(up=-1)[1] for box in boxes) - 0.15
    bottom, top = below - 0.4, max(box.side(up=1)[1] for box in boxes) + 0.4
    figure = Figure(figsize=(right - left, top - bottom))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    axes.text(left + 0.1, top - 0.08, network.title, va="top", fontsize=10, weight="bold")
    for box in boxes:
        _draw_box(axes, box)
    steps = [pair for row in rows for pair in pairwise(filter(None, row))]
    for source, target in (pair for step in steps for pair in product(*step)):
        _arrow(axes, source.side(right=1), target.side(right=-1))
    for source, target in zip(*rows, strict=False):
        if source and target:
            _arrow(axes, source[0].side(up=-1), target[0].side(up=1))
    for crf in (
        box for box in boxes if box.kind == "crf"
    ):  # The CRF also takes the image as input.
        start, end = boxes[0].side(up=-1), crf.side(up=-1)
        axes.plot([start[0], start[0], end[0]], [start[1], below, below], **LINES)
        _arrow(axes, (end[0], below), end)
    used = [style for kind, style in COLORS.items() if kind in {box.kind for box in boxes}]
    patches = [Patch(facecolor=color, edgecolor="#555555", label=label) for color, label in used]
    figure.legend(handles=patches, loc="lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110, format="png")


def _draw_box(axes: Axes, box: Box) -> None:
    (_, top), (left, _), (_, bottom) = box.side(up=1), box.side(right=-1), box.side(up=-1)
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06", "edgecolor": "#555555"}
    corner, color = (left, bottom), COLORS[box.kind][0]
    axes.add_patch(FancyBboxPatch(corner, WIDTH, top - bottom, facecolor=color, **style))
    axes.text(box.x, box.y, box.text, ha="center", va="center", fontsize=8)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    if start[0] != end[0] and start[1] != end[1]:
        middle = (start[0] + end[0]) / 2
        axes.plot([start[0], middle, middle], [start[1], start[1], end[1]], **LINES)
        start = middle, end[1]
    axes.annotate("", end, start, arrowprops=ARROW)


if __name__ == "__main__":
    for name, network in NETWORKS.items():
        draw(network, Path(__file__).parent / "images" / f"{name}.png")
