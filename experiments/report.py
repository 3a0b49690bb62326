"""usage: python -m experiments.report [NAME …] [--workdir=DIR]

Writes a report on each table that was run, as Markdown, CSV and a plot, from stored results. For
each row, a report contains the published value, the mean and standard deviation over seeds, and the
difference from the published value. Presets other than `paper` use smaller data and networks than
the paper: their Markdown files contain the change from the first row with a result instead of the
difference, and their plots show changes instead of values. Markdown files of the preset `paper`
also contain the estimated chip-hours. If NAMEs are given, only reports whose name contains one of
them are written.

example:
  python -m experiments.report v3-table5 --workdir=runs/experiments
"""

import pathlib
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text
from deeplab_jax.reporter import Reporter
from experiments import commands

if TYPE_CHECKING:
    from experiments.batch import OpenRequest


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command `experiments.report`."""
    commands.define_workdir(flags)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Writes the reports and prints their paths."""
    from experiments.batch import open_requests

    opened = open_requests(flags.workdir, console)
    wanted = [one for one in opened if not paths or any(part in one.request.name for part in paths)]
    if not opened:
        raise DeepLabError(
            f"nothing was run in {flags.workdir}; run a table with `python -m experiments.run`, or "
            "give the --workdir of an earlier run"
        )
    if not wanted:
        names = ", ".join(one.request.name for one in opened)
        sought = f" with {' or '.join(paths)} in its name" if paths else ""
        raise DeepLabError(f"{flags.workdir} has no report{sought}; available reports: {names}")
    for one in wanted:
        write_reports(one, console, announce=True)


def write_reports(opened: "OpenRequest", reporter: Reporter, announce: bool = False) -> None:
    """Writes the report on one table as `NAME.md`, `NAME.csv` and `NAME.png`.

    The files are written to WORKDIR/PRESET/reports. NAME is `opened.request.name`.

    Args:
      opened: request with which the table was run.
      reporter: receives a message with the paths of the files, if `announce` is True.
      announce: whether to report the paths.
    """
    from experiments.costs import Counter
    from experiments.measurements import measure
    from experiments.plots import write_plot
    from experiments.texts import csv_text, markdown

    folder = opened.storage.folder
    counter = Counter(folder / "costs.json")
    measurements = measure(
        opened.table, opened.cases, opened.storage, opened.request.seeds, counter
    )
    base = folder / "reports" / opened.request.name
    write_text(base.with_name(f"{base.name}.csv"), csv_text(opened, measurements))
    write_text(base.with_name(f"{base.name}.md"), markdown(opened, measurements, counter))
    picture = base.with_name(f"{base.name}.png")
    write_plot(picture, opened.table, measurements, small=opened.preset.scales_down)
    if announce:
        reporter.message(f"report: {pathlib.Path(f'{base}.md')}, .csv and .png beside it")


if __name__ == "__main__":
    commands.start("experiments.report", __doc__, define_flags, run)
