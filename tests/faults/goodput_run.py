"""Goodput of a long run that is killed many times, computed from its own log."""

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
from kills import same_end
from tiny_run import Process, TinyRuns

from deeplab_jax.training.goodput import TRAINING, Goodput, goodput, read_timeline

# Limits that the run must keep on two cores.
LEAST_GOODPUT, MOST_START_UP = 0.97, 15.0
# A step of this network takes 0.1 to 0.3 s on two cores, longer than reading its batch. Checkpoints
# are about a minute apart.
OVERRIDES = (
    "log_every_steps=10",
    "checkpoint.every_steps=300",
    "evaluation.every_steps=1000000",
    "evaluation.limit=2",
)


def goodput_of_killed_run(
    runs: TinyRuns,
    steps: int,
    kills: int,
    seed: int,
    say: Callable[[str], None],
    config: str = "shapes:cpu",
    overrides: tuple[str, ...] = OVERRIDES,
) -> tuple[Goodput, bool]:
    """Kills a run at random moments, and compares its end with that of an undisturbed run.

    Args:
      runs: starts processes; its folder has the dataset.
      steps: number of training steps.
      kills: number of kills, on average equally spaced in time.
      seed: seed of the moments.
      say: receives a line for each start.
      config: config of the run.
      overrides: values of config fields.

    Returns:
      The goodput over all starts, and whether variables and losses are equal, bit for bit.
    """
    undisturbed, workdir = (runs.folder / f"goodput_{name}" for name in ("undisturbed", "killed"))
    shutil.rmtree(workdir, ignore_errors=True)
    # If the folder contains the finished run of an earlier call, the command ends at once.
    alone_words = _words(runs, undisturbed, steps, config, overrides)
    runs.finish(runs.start(*alone_words), timeout=None)
    alone = goodput(read_timeline(undisturbed))
    say(f"undisturbed: {alone}")
    words, random = _words(runs, workdir, steps, config, overrides), np.random.default_rng(seed)
    between = alone.productive / (kills + 1)
    for _ in range(kills):
        _kill_later(runs.start(*words), workdir, between * random.uniform(0.5, 1.5))
        say(str(goodput(read_timeline(workdir))))
    runs.finish(runs.start(*words), timeout=None)
    return goodput(read_timeline(workdir)), same_end(runs, workdir, undisturbed, steps)


def _kill_later(process: Process, workdir: pathlib.Path, seconds: float) -> None:
    """Kills a run `seconds` after it began to train, unless it ends before.

    Unlike `wait`, `communicate` reads the output of the process, which would otherwise block it.
    """
    before = _count_trainings(workdir)
    while process.poll() is None:
        began = _count_trainings(workdir) > before
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=seconds if began else 0.5)
        if began:
            process.kill()
    process.communicate()
    assert process.returncode in (0, -9), process.returncode


def _count_trainings(workdir: pathlib.Path) -> int:
    return sum(event["event"] == TRAINING for event in read_timeline(workdir))


def _words(
    runs: TinyRuns, workdir: pathlib.Path, steps: int, config: str, overrides: tuple[str, ...]
) -> list[str]:
    values = (f"data.data_dir={runs.folder / 'data'}", f"training.num_steps={steps}", *overrides)
    fields = [f"--config.{value}" for value in values]
    return ["train", f"--config={config}", f"--workdir={workdir}", *fields]


def rows(found: Goodput, equal: bool) -> Iterator[tuple[tuple[str, object], bool]]:
    """Yields the rows of the table, and whether each is wrong."""
    yield ("goodput: starts", found.starts), False
    yield ("goodput: minutes", round(found.wall / 60, 1)), False
    yield ("goodput", round(found.fraction, 4)), found.fraction < LEAST_GOODPUT
    start_up = found.longest_start_up
    yield ("goodput: longest start-up in seconds", round(start_up, 1)), start_up > MOST_START_UP
    yield ("goodput: equal to the undisturbed run, bit for bit", equal), not equal
