"""Report on the results of an ablation table, as Markdown and CSV."""

import csv
import io
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deeplab_jax.cli.console import duration
from experiments.cases import ResolvedTraining
from experiments.costs import CHIP_OPERATIONS, Counter, chip_hours
from experiments.measurements import Measurement, first_measured
from experiments.table import METRICS

if TYPE_CHECKING:
    from experiments.batch import OpenRequest

COLUMNS = (
    "row",
    "metric",
    "published",
    "mean",
    "standard_deviation",
    "difference",
    "seeds",
    "values",
    "training",
    "strategy",
    "note",
)


def csv_text(opened: "OpenRequest", measurements: Sequence[Measurement]) -> str:
    """Returns the report of a table as CSV: one line per measurement, with unrounded values."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in measurements:
        training = one.case.training
        writer.writerow(
            (
                one.case.row.label,
                one.metric,
                _all_digits(one.published),
                _all_digits(one.mean),
                _all_digits(one.standard_deviation),
                _all_digits(one.difference),
                len(one.values),
                " ".join(repr(float(value)) for value in one.values.values()),
                "" if training is None else training.key,
                "" if training is None else one.case.strategy,
                one.note,
            )
        )
    return buffer.getvalue()


def markdown(opened: "OpenRequest", measurements: Sequence[Measurement], counter: Counter) -> str:
    """Returns the report of a table as Markdown.

    Args:
      opened: request to run the table.
      measurements: measurements of all rows of the table.
      counter: counts the multiply-adds of networks, from which chip-hours are estimated.
    """
    table, request = opened.table, opened.request
    parts = [f"# {_title(opened)}", table.title + ".", _what(opened)]
    if opened.preset.scales_down:
        parts.append(
            f"The preset `{opened.preset.name}` has smaller data, networks, crops and schedules "
            "than the paper. Compare differences between rows, not the values themselves."
        )
    parts.append(_table(measurements, opened.preset.scales_down))
    parts.append(_totals(opened, measurements))
    if not opened.preset.scales_down:
        parts.append(_chip_hours(opened, counter))
    if table.notes:
        parts.append(table.notes)
    parts.append(f"![values]({request.name}.png)")
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(opened: "OpenRequest") -> str:
    table, request = opened.table, opened.request
    where = "" if table.paper == "own" else f" ({table.paper}, {_place(table.number)})"
    return f"{request.name}{where}"


def _place(number: str) -> str:
    return f"figure {number.removeprefix('fig')}" if number.startswith("fig") else f"table {number}"


def _what(opened: "OpenRequest") -> str:
    request = opened.request
    words = [request.table, f"--preset={request.preset}", f"--seeds={request.seeds}"]
    words += [f"--init={request.init}"] if request.init else []
    words += [f"--grid={text}" for text in request.grid]
    # Shells do not accept the brackets of a grid without quotes.
    return f"`python -m experiments.run {shlex.join(words)}`"


def _table(measurements: Sequence[Measurement], small: bool) -> str:
    """Returns the Markdown table of measurements.

    Args:
      measurements: measurements of all rows.
      small: whether the preset scales the table down, for example to small networks. If so, the
        last numeric column is the change relative to the first row with a measured value;
        otherwise, it is the difference from the published value.
    """
    against = "change" if small else "difference"
    lines = [
        f"| row | metric | published | measured | ± | seeds | {against} | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in measurements:
        cells = (
            _escaped(one.case.row.label),
            METRICS[one.metric],
            _short(one.published),
            _short(one.mean),
            _short(one.standard_deviation),
            str(len(one.values) or ""),
            _change(one, measurements) if small else _short(one.difference, sign=True),
            _escaped(one.note),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if small:
        lines += [
            "",
            "Change: difference from the first measured row; mean ± standard deviation over seeds.",
        ]
    return "\n".join(lines)


def _change(one: Measurement, measurements: Sequence[Measurement]) -> str:
    first = first_measured(measurements, one.metric)
    if first is None or first is one:
        return ""
    mean, spread = one.change(first)
    return _short(mean, sign=True) + ("" if spread is None else f" ± {_short(spread)}")


def _totals(opened: "OpenRequest", measurements: Sequence[Measurement]) -> str:
    """Returns the lines of the report that summarize which rows and training runs are finished.

    They state the number of rows with results, the labels of the rows without results, and the
    number, time, devices and commits of the finished training runs.
    """
    labels = dict.fromkeys(one.case.row.label for one in measurements)
    run = {one.case.row.label for one in measurements if one.values and _is_run(one)}
    missing = [label for label in labels if label not in run]
    lines = [f"Rows with results: {len(run)} of {len(labels)}."]
    if missing:
        lines.append(f"Not run: {'; '.join(map(_escaped, missing))}.")
    summaries = _summaries(opened)
    if summaries:
        seconds = sum(summary["seconds"] for summary in summaries)
        longest = max(summary["seconds"] for summary in summaries)
        devices = sorted({f"{len(s['devices'])} × {s['device_kind']}" for s in summaries})
        commits = sorted({str(summary["commit"])[:9] for summary in summaries})
        lines.append(
            f"{_counted(len(summaries), 'training run')}; time of the training steps: "
            f"{duration(seconds)} in total, {duration(longest)} for the longest run; devices: "
            f"{', '.join(devices)}; commit {', '.join(commits)}."
        )
    return "\n".join(lines)


def _is_run(one: Measurement) -> bool:
    return one.metric not in ("GMAdds", "Mparams")


def _summaries(opened: "OpenRequest") -> list[dict]:
    # Configs with different texts can have the same key and then share a training run.
    trainings = {case.training.key: case.training for case in opened.cases if case.training}
    found = (
        opened.storage.read_training(training, seed)
        for training in trainings.values()
        for seed in range(opened.request.seeds)
    )
    return [summary for summary in found if summary]


def _chip_hours(opened: "OpenRequest", counter: Counter) -> str:
    """Returns a line with the estimated chip-hours of all distinct training runs of the table.

    `counter` counts the multiply-adds of their networks.
    """
    trainings: dict[str, ResolvedTraining] = {}
    for case in opened.cases:
        training = case.training
        while training is not None:
            trainings[training.key] = training
            if training.unlabeled:
                trainings[training.teacher.key] = training.teacher
            training = training.after
    hours = sum(chip_hours(training, counter) for training in trainings.values())
    seeds = opened.request.seeds
    return (
        f"Estimated cost (not measured): {_counted(len(trainings), 'training run')} × "
        f"{_counted(seeds, 'seed')}, {hours * seeds:.1f} chip-hours on a chip that sustains "
        f"{CHIP_OPERATIONS / 1e12:.0f} TFLOP/s. A training step is counted as three forward "
        "passes. Data loading and evaluation are not included."
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number > 1)}"


def _all_digits(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _short(value: float | None, sign: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
