"""Plots of tables (published and measured value of each row) and of claims."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab_jax.files import replacing
from experiments.measurements import Measurement, first_measured
from experiments.table import METRICS, Table

if TYPE_CHECKING:
    from experiments.claims import Result

PUBLISHED, OURS = "#999999", "#4477aa"
VERDICTS = {"shown": OURS, "opposite": "#cc3311"}


def write_plot(
    path: Path, table: Table, measurements: Sequence[Measurement], *, small: bool
) -> None:
    """Writes a PNG plot with the published and the measured value of each row of a table.

    Args:
      path: path of the file, which is written atomically.
      table: table to plot.
      measurements: measurements of the table. Only rows that have a published or measured value
        of the table's metric are plotted.
      small: whether the preset has small networks. If so, changes relative to the first measured
        row are plotted instead of values.
    """
    own = [one for one in measurements if one.metric == table.metric]
    rows = [one for one in own if one.values or one.published is not None]
    figure = Figure(figsize=(8.5, 1.3 + 0.34 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    values = _values(rows, small)
    for position, (published, mean, spread) in enumerate(values):
        if published is not None:
            axes.plot(published, position, "o", color=PUBLISHED, fillstyle="none", markersize=7)
        if mean is not None:
            bar = spread or 0.0
            axes.errorbar(mean, position, xerr=bar, fmt="o", color=OURS, markersize=5, capsize=3)
        else:
            beside_axis = axes.get_yaxis_transform()
            axes.text(0.01, position, "not run", size=8, va="center", transform=beside_axis)
    labels = [_wrapped(one.case.row.label) for one in rows]
    # A pair of dollar signs in a label does not start a formula.
    axes.set_yticks(range(len(rows)), labels, size=8, parse_math=False)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    change = ", change from the first measured row" if small else ""
    axes.set_xlabel(METRICS[table.metric] + change)
    if any(published is not None for published, *_ in values):
        axes.plot([], [], "o", color=PUBLISHED, fillstyle="none", label="published")
    axes.errorbar([], [], xerr=[], fmt="o", color=OURS, label="measured (± standard deviation)")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def write_claims_plot(path: Path, results: Sequence["Result"]) -> None:
    """Writes a PNG plot of the differences between the two rows of each claim.

    A claim states that one row of a table has a higher value than another row. The plot shows, for
    each claim, the differences of all seeds, their mean, the 95 % interval of the mean, and the
    smallest relevant effect. The horizontal axis is linear between −1 and 1 and logarithmic
    elsewhere.

    Args:
      path: path of the file, which is written atomically.
      results: results of the claims. Claims without values are left out.
    """
    run = [one for one in results if one.better]
    figure = Figure(figsize=(9.5, 1.3 + 0.34 * len(run)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    for position, one in enumerate(run):
        verdict = one.verdict
        color = VERDICTS.get(verdict.decision, PUBLISHED)
        axes.plot(one.differences, [position] * len(one.differences), ".", color=color, alpha=0.35)
        if verdict.seeds > 1:
            axes.plot([verdict.low, verdict.high], [position] * 2, color=color, linewidth=1.5)
        axes.plot(verdict.mean, position, "o", color=color, markersize=5)
        axes.plot(one.claim.effect, position, "|", color="black", markersize=9)
    # Only the first source, without its remark.
    sources = [re.split(r"; | \(", one.claim.source)[0] for one in run]
    labels = [f"{one.claim.text} ({source})" for one, source in zip(run, sources, strict=True)]
    axes.set_yticks(range(len(run)), [_wrapped(label, 70) for label in labels], size=7)
    axes.set_ylim(max(len(run), 1) - 0.5, -0.5)
    axes.set_xscale("symlog", linthresh=1)
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"
    )
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("difference in mean IoU between the two rows, %")
    for decision, color in (*VERDICTS.items(), ("cannot be shown here", PUBLISHED)):
        axes.plot([], [], "o", color=color, label=decision)
    axes.plot([], [], "|", color="black", label="smallest relevant effect")
    figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _values(
    rows: Sequence[Measurement], small: bool
) -> list[tuple[float | None, float | None, float | None]]:
    """Returns (published, measured, standard deviation) for each row.

    If `small` (the preset has small networks), the values are changes relative to the first row
    that has a measured value. If this row has no published value, published changes are relative
    to the first row that has one.
    """
    first = first_measured(rows, rows[0].metric) if small and rows else None
    if first is None:
        return [(one.published, one.mean, one.standard_deviation) for one in rows]
    reference = first.published
    if reference is None:
        published = (one.published for one in rows if one.published is not None)
        reference = next(published, 0.0)
    return [(_less(one.published, reference), *one.change(first)) for one in rows]


def _less(value: float | None, first: float) -> float | None:
    return None if value is None else value - first


def _wrapped(label: str, width: int = 46) -> str:
    if len(label) <= width:
        return label
    cut = label.rfind(" ", 0, width)
    return label if cut < 0 else f"{label[:cut]}\n{label[cut + 1 :]}"
