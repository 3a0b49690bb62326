"""usage: python -m experiments.claims [--workdir=DIR] [--output=FILE.md]

Decides the claims of all tables from stored results and writes a report. For each claim, the report
states the source, the two rows that are compared, the mean difference with its 95 % interval, the
number of seeds, the minutes of training, the command, and the verdict.

The smallest relevant effect e of each claim was fixed before the first run. A claim states that row
A has a higher value than row B. Let d be the mean, over seeds, of the value of A minus the value of
B. The verdicts are:

  shown                   at least 5 seeds, the interval lies above 0, and d ≥ e
  opposite                at least 5 seeds, the interval lies below 0, and d ≤ −e
  cannot be shown here    otherwise

example:
  python -m experiments.run diagnostic/thin --seeds=5 --data_dir=data
  python -m experiments.claims --output=claims.md
"""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.files import write_text
from experiments import commands
from experiments.catalog import find_table, list_tables
from experiments.table import Claim

if TYPE_CHECKING:
    from experiments.batch import OpenRequest

SHOWN, OPPOSITE, UNDECIDED = "shown", "opposite", "cannot be shown here"
MIN_SEEDS, LEVEL = 5, 0.95


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


def paired_differences(opened: "OpenRequest", claim: Claim) -> tuple[list[float], float]:
    """Returns the differences between the two rows of a claim, and their training time.

    Args:
      opened: request that ran the table of the claim.
      claim: claim to decide.

    Returns:
      A list of the value of the row `claim.better` minus that of the row `claim.worse`, for each
      seed for which both rows have a value; and the total time of the training steps of both rows
      with these seeds, in minutes.
    """
    from experiments.costs import Counter
    from experiments.measurements import measure

    storage, seeds = opened.storage, opened.request.seeds
    cases = [case for case in opened.cases if case.row.label in (claim.better, claim.worse)]
    counter = Counter(storage.folder / "costs.json")
    found = {
        one.case.row.label: one.values
        for one in measure(opened.table, cases, storage, seeds, counter)
        if one.metric == opened.table.metric
    }
    better, worse = found.get(claim.better, {}), found.get(claim.worse, {})
    both = sorted(set(better) & set(worse))
    summaries = [
        storage.read_training(case.training, seed) or {}
        for case in cases
        if case.training is not None
        for seed in both
    ]
    minutes = sum(summary.get("seconds", 0.0) for summary in summaries) / 60
    return [float(better[seed] - worse[seed]) for seed in both], minutes


def claim_tables() -> list[str]:
    """Returns the names of all tables with claims."""
    return [name for name in list_tables() if find_table(name).claims]


def report(requests: Iterable["OpenRequest"]) -> str:
    """Returns the report on all claims, in Markdown.

    Args:
      requests: requests that were run. Claims without results are listed as not run.
    """
    # Claims are about the rows of the table, which a grid changes.
    run = {one.request.table: one for one in requests if not one.request.grid}
    lines = ["# Claims", "", *_rule(), ""]
    header = ("claim", "source", "difference, %", "95 % interval", "seeds", "minutes", "verdict")
    counts = dict.fromkeys((SHOWN, OPPOSITE, UNDECIDED, "not run"), 0)
    for name in claim_tables():
        table = find_table(name)
        command = f"python -m experiments.run {name} --seeds={MIN_SEEDS} --data_dir=data"
        lines += [f"## {table.title}", "", f"`{command}`", ""]
        lines += [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
        for claim in table.claims:
            cells = _cells(claim, run.get(name))
            counts[cells[-1]] += 1
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *([table.notes, ""] if table.notes else [])]
    summary = ", ".join(f"{count} {name}" for name, count in counts.items())
    return "\n".join([*lines[:2], f"{sum(counts.values())} claims: {summary}.", "", *lines[2:]])


def _rule() -> list[str]:
    return [
        f"A claim is *shown* if there are at least {MIN_SEEDS} seeds, the 95 % interval of the "
        "mean difference lies above 0, and the mean difference is at least the effect that was "
        "fixed before the first run. It is *opposite* if the interval lies below 0 and the mean "
        "difference is at most minus this effect."
    ]


def _cells(claim: Claim, opened: "OpenRequest | None") -> list[str]:
    text = f"{claim.text} ({claim.better} − {claim.worse} ≥ {claim.effect:g})"
    differences, minutes = paired_differences(opened, claim) if opened else ([], 0.0)
    if not differences:
        return [text, claim.source, "–", "–", "0", "–", "not run"]
    verdict = decide(differences, claim.effect)
    interval = f"{verdict.low:+.2f} to {verdict.high:+.2f}" if verdict.seeds > 1 else "–"
    numbers = [f"{verdict.mean:+.2f}", interval, str(verdict.seeds), f"{minutes:.1f}"]
    return [text, claim.source, *numbers, verdict.decision]


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command `experiments.claims`."""
    commands.define_workdir(flags)
    flags.define("output", None, "Markdown file for the report (default: it is printed).")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Writes the report on all claims to the file --output, or prints it."""
    from experiments.batch import open_requests

    flags.refuse("experiments.claims", paths)
    text = report(open_requests(flags.workdir))
    if flags.output is None:
        console.print(text)
        return
    write_text(pathlib.Path(flags.output), text)
    console.message(f"the report is in {flags.output}")


if __name__ == "__main__":
    commands.start("experiments.claims", __doc__, define_flags, run)
