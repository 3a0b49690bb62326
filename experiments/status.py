"""usage: python -m experiments.status [--workdir=DIR]

Prints the progress of every table that was run: the number of finished training runs, the state of
each unfinished one, and the estimated time left.

example:
  python -m experiments.status --workdir=runs/experiments
"""

import statistics
from typing import TYPE_CHECKING

from deeplab_jax.cli.console import Console, duration
from deeplab_jax.cli.flags import Flags
from deeplab_jax.training.writers import read_rows
from experiments import commands

if TYPE_CHECKING:
    from experiments.batch import OpenRequest
    from experiments.jobs import Job


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command `experiments.status`."""
    commands.define_workdir(flags)


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prints the progress of each table."""
    commands.refuse(flags, "experiments.status", paths)
    from experiments.batch import open_requests

    opened = open_requests(flags.workdir, console)
    if not opened:
        console.print(f"nothing was run in {flags.workdir}")
    for one in opened:
        console.print("\n".join(status_lines(one)))


def status_lines(opened: "OpenRequest") -> list[str]:
    """Returns lines of text with the progress of one requested table.

    The first line contains the number of finished training runs. It is followed by one line for
    each unfinished run, and by a line with the time left if there are unfinished runs.

    The time left is the estimated time of all remaining training steps, if runs are executed one
    after the other. A run without logged steps is assumed to have the mean step time of the others.
    """
    from experiments.jobs import is_done, make_jobs

    jobs = make_jobs(opened.cases, opened.request.seeds)
    waiting = [job for job in jobs if not is_done(job, opened.storage)]
    skipped = sum(case.why_not is not None for case in opened.cases)
    left_out = f"; {skipped} rows cannot be run with this preset" if skipped else ""
    lines = [
        f"{opened.request.preset}/{opened.request.name}: {len(jobs) - len(waiting)} of {len(jobs)} "
        f"training runs finished{left_out}"
    ]
    speeds = (_seconds_per_step(opened, job) for job in jobs)
    known = [speed for speed in speeds if speed]
    seconds = 0.0
    for job in waiting:
        steps, done = job.training.config.training.num_steps, _steps_done(opened, job)
        speed = _seconds_per_step(opened, job) or (statistics.fmean(known) if known else 0.0)
        seconds += (steps - done) * speed
        state = "to evaluate" if done == steps else f"step {done} of {steps}"
        lines.append(f"  {job.cases[0].row.label}, seed {job.seed}: {state}")
    if waiting:
        shown = duration(seconds) if known else "unknown before the first steps"
        lines.append(f"  time left for training steps: {shown}")
    return lines


def _steps_done(opened: "OpenRequest", job: "Job") -> int:
    summary = opened.storage.read_training(job.training, job.seed)
    if summary:
        return job.training.config.training.num_steps
    rows = read_rows(opened.storage.training(job.training, job.seed))
    return int(max((row["step"] for row in rows), default=0))


def _seconds_per_step(opened: "OpenRequest", job: "Job") -> float | None:
    rows = read_rows(opened.storage.training(job.training, job.seed))
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    if not speeds:
        return None
    return job.training.config.training.batch_size / statistics.median(speeds)


if __name__ == "__main__":
    commands.start("experiments.status", __doc__, define_flags, run)
