"""usage: python -m experiments.claims [--workdir=DIR] [--output=FILE.md]

Decides the claims of all tables from stored results and writes a report. For each claim, the report
states the source, the two rows that are compared, the mean difference with its 95 % interval, the
number of seeds, the minutes of training, and the verdict. For each table, it states the command.

The smallest relevant effect e of each claim was fixed before the first run. A claim states that row
A has a higher value than row B. Let d be the mean, over seeds, of the value of A minus the value of
B. The verdicts are:

  shown                   at least 5 seeds, the interval lies above 0, and d ≥ e
  opposite                at least 5 seeds, the interval lies below 0, and d ≤ −e
  not run                 there is no seed for which both rows have a value
  cannot be shown here    otherwise

example:
  python -m experiments.run diagnostic/thin --seeds=5 --data_dir=data
  python -m experiments.claims --output=claims.md
"""

import csv
import dataclasses
import io
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, write_text
from experiments import commands
from experiments.catalog import find_table, list_tables
from experiments.table import Claim

if TYPE_CHECKING:
    from experiments.batch import OpenRequest

SHOWN, OPPOSITE, UNDECIDED, NOT_RUN = "shown", "opposite", "cannot be shown here", "not run"
MIN_SEEDS, LEVEL = 5, 0.95
RULE = (
    f"A claim is *shown* if there are at least {MIN_SEEDS} seeds, the 95 % interval of the mean "
    "difference lies above 0, and the mean difference is at least the effect that was fixed before "
    "the first run. It is *opposite* if the interval lies below 0 and the mean difference is at "
    "most minus this effect."
)
COLUMNS = (
    *("table", "claim", "source", "better", "worse", "effect"),
    *("better_values", "worse_values", "difference", "low", "high", "seeds", "minutes", "verdict"),
    *("command", "commit", "hardware", "date"),
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Decision on a claim.

    Attributes:
      decision: `shown`, `opposite` or `cannot be shown here`.
      mean: mean difference over seeds, in the unit of the metric; NaN without seeds.
      low, high: bounds of the 95 % interval of the mean (Student's t); infinite for fewer than two
        seeds.
      seeds: number of seeds for which both rows have a value.
    """

    decision: str
    mean: float
    low: float
    high: float
    seeds: int


def decide(differences: Sequence[float], effect: float) -> Verdict:
    """Decides a claim from the differences between its two rows.

    The decision is `shown` if there are at least 5 seeds, the 95 % interval of the mean difference
    lies above 0, and the mean difference is at least `effect`. It is `opposite` if there are at
    least 5 seeds, the interval lies below 0, and the mean difference is at most −`effect`.
    Otherwise, it is `cannot be shown here`.

    Args:
      differences: for each seed, value of the row `Claim.better` minus value of `Claim.worse`.
      effect: smallest relevant difference, above 0.
    """
    seeds = len(differences)
    mean, margin = (statistics.fmean(differences), math.inf) if seeds else (math.nan, math.inf)
    if seeds > 1:
        from scipy.stats import t

        deviation = statistics.stdev(differences)
        margin = float(t.ppf((1 + LEVEL) / 2, seeds - 1)) * deviation / math.sqrt(seeds)
    low, high = (mean - margin, mean + margin) if seeds else (-math.inf, math.inf)
    decision = UNDECIDED
    if seeds >= MIN_SEEDS and low > 0 and mean >= effect:
        decision = SHOWN
    elif seeds >= MIN_SEEDS and high < 0 and mean <= -effect:
        decision = OPPOSITE
    return Verdict(decision, mean, low, high, seeds)


@dataclasses.dataclass(frozen=True)
class Result:
    """Results of the two rows of a claim.

    Attributes:
      table: name of the table, such as `diagnostic/thin`.
      claim: the claim.
      better, worse: values of the row `claim.better` and of the row `claim.worse`, by seed, in the
        unit of the table's metric. Only seeds for which both rows have a value are included.
      minutes: total time of the training steps of both rows with these seeds, in minutes.
      command: command that runs the two rows.
      commits, devices, dates: commits, devices and dates of the training runs, without repetition.
    """

    table: str
    claim: Claim
    better: Mapping[int, float]
    worse: Mapping[int, float]
    minutes: float
    command: str
    commits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()

    @property
    def differences(self) -> list[float]:
        """For each seed, the value of the row `better` minus the value of the row `worse`."""
        return [self.better[seed] - self.worse[seed] for seed in self.better]

    @property
    def verdict(self) -> Verdict:
        """Decision on the claim."""
        return decide(self.differences, self.claim.effect)


def claim_tables() -> list[str]:
    """Returns the names of all tables with claims."""
    return [name for name in list_tables() if find_table(name).claims]


def results(requests: Iterable["OpenRequest"]) -> list[Result]:
    """Returns one result for each claim of all tables.

    A result has no values if there is no seed for which both rows of the claim have a value.

    Args:
      requests: stored requests. For each table, the request with the most seeds is used. Two kinds
        of requests are ignored: those with a grid, because a grid changes the rows that a claim
        compares, and those whose preset cannot run any row of the table.
    """
    usable = [
        one for one in requests if not one.request.grid and any(case.training for case in one.cases)
    ]
    run = {one.request.table: one for one in sorted(usable, key=lambda one: one.request.seeds)}
    return [
        _result(name, claim, run.get(name))
        for name in claim_tables()
        for claim in find_table(name).claims
    ]


def _result(name: str, claim: Claim, opened: "OpenRequest | None") -> Result:
    labels = [row.label for row in find_table(name).rows]
    rows = sorted(labels.index(label) + 1 for label in (claim.better, claim.worse))
    only = "" if len(rows) == len(labels) else f" --rows={rows[0]},{rows[1]}"
    command = f"python -m experiments.run {name}{only} --seeds={MIN_SEEDS} --data_dir=data"
    if opened is None:
        return Result(name, claim, {}, {}, 0.0, command)
    better, worse = _values(opened, claim.better), _values(opened, claim.worse)
    seeds = sorted(set(better) & set(worse))
    keys = {
        case.training.key: case.training
        for case in opened.cases
        if case.row.label in (claim.better, claim.worse) and case.training is not None
    }
    read = opened.storage.read_training
    found = [read(training, seed) for training in keys.values() for seed in seeds]
    summaries = [summary for summary in found if summary]
    return Result(
        name,
        claim,
        {seed: better[seed] for seed in seeds},
        {seed: worse[seed] for seed in seeds},
        sum(summary["seconds"] for summary in summaries) / 60,
        command,
        _distinct(str(summary["commit"])[:8] for summary in summaries),
        _distinct(f"{len(one['devices'])} × {one['device_kind']}" for one in summaries),
        _distinct(str(summary["started"])[:10] for summary in summaries),
    )


def _values(opened: "OpenRequest", label: str) -> dict[int, float]:
    """Returns the value of a row for each seed that has one."""
    from experiments.costs import Counter
    from experiments.measurements import measure

    counter = Counter(opened.storage.folder / "costs.json")
    cases = [case for case in opened.cases if case.row.label == label]
    found = measure(opened.table, cases, opened.storage, opened.request.seeds, counter)
    one = next(one for one in found if one.metric == opened.table.metric_of(one.case.row))
    return {seed: float(value) for seed, value in one.values.items()}


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts)))


def markdown(found: Sequence[Result]) -> str:
    """Returns the report on claims as Markdown. Claims without values are listed as not run."""
    lines: list[str] = []
    header = ("claim", "source", "difference, %", "95 % interval", "seeds", "minutes", "verdict")
    counts = dict.fromkeys((SHOWN, OPPOSITE, UNDECIDED, NOT_RUN), 0)
    for name, group in itertools.groupby(found, lambda one: one.table):
        table = find_table(name)
        command = f"python -m experiments.run {name} --seeds={MIN_SEEDS} --data_dir=data"
        lines += [f"## {table.title}", "", f"`{command}`", ""]
        lines += [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
        for one in group:
            cells = _cells(one)
            counts[cells[-1]] += 1
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *([table.notes, ""] if table.notes else [])]
    summary = ", ".join(f"{count} {name}" for name, count in counts.items())
    return "\n".join(["# Claims", "", f"{len(found)} claims: {summary}.", "", RULE, "", *lines])


def _cells(one: Result) -> list[str]:
    claim, verdict = one.claim, one.verdict
    text = f"{claim.text} ({claim.better} − {claim.worse} ≥ {claim.effect:g})"
    if not verdict.seeds:
        return [text, claim.source, "–", "–", "0", "–", NOT_RUN]
    interval = f"{verdict.low:+.2f} to {verdict.high:+.2f}" if verdict.seeds > 1 else "–"
    numbers = [f"{verdict.mean:+.2f}", interval, str(verdict.seeds), f"{one.minutes:.1f}"]
    return [text, claim.source, *numbers, verdict.decision]


def csv_text(found: Sequence[Result]) -> str:
    """Returns the report on claims as CSV: one line per claim, with the values of all seeds."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        claim, verdict = one.claim, one.verdict
        values = (
            " ".join(f"{value:.4f}" for value in row.values()) for row in (one.better, one.worse)
        )
        decision = verdict.decision if verdict.seeds else NOT_RUN
        numbers = (f"{value:.4f}" for value in (verdict.mean, verdict.low, verdict.high))
        origin = (" ".join(one.commits), " ".join(one.devices), " ".join(one.dates))
        names = (
            one.table,
            claim.text,
            claim.source,
            claim.better,
            claim.worse,
            f"{claim.effect:g}",
        )
        results = (*values, *numbers, verdict.seeds, f"{one.minutes:.1f}", decision)
        writer.writerow((*names, *results, one.command, *origin))
    return buffer.getvalue()


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command `experiments.claims`."""
    commands.define_workdir(flags)
    flags.define(
        "output",
        None,
        "Markdown file for the report; a CSV file and a plot are written beside it (default: the "
        "report is printed, and nothing is written).",
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Writes the report on all claims, a CSV file and a plot, or prints the report.

    The files are written only if --output is given.
    """
    from experiments.batch import open_requests
    from experiments.plots import write_claims_plot

    commands.refuse(flags, "experiments.claims", paths)
    found = results(open_requests(flags.workdir, console))
    if flags.output is None:
        console.print(markdown(found))
        return
    output = as_path(flags.output)
    if output.suffix != ".md":
        raise DeepLabError(f"--output must be a Markdown file (.md); got {flags.output}")
    write_text(output.with_suffix(".csv"), csv_text(found))
    write_claims_plot(output.with_suffix(".png"), found)
    write_text(output, f"{markdown(found)}\n![differences]({output.stem}.png)\n")
    console.message(f"report: {output}, .csv and .png beside it")


if __name__ == "__main__":
    commands.start("experiments.claims", __doc__, define_flags, run)
