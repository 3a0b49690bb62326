"""`kill -9` at random moments of a training run that is started again until it is done."""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable

import jax
import numpy as np
from forked import end_with
from tiny_run import NUM_STEPS, Process, TinyRuns, newest_step, reached_step

from deeplab_jax.checkpointing import read_variables
from deeplab_jax.checkpointing.saved_states import COMMITTED
from deeplab_jax.training.writers import read_rows

# Where kills fall, and how many of a hundred do: after a step, while a checkpoint is written (its
# directory has another name until it is whole), and while the process starts.
MOMENTS = {"step": 45, "save": 40, "start": 15}
KILLS_A_RUN = 8
POLL_SECONDS = 0.003


@dataclasses.dataclass
class Tally:
    """What came of the kills.

    Attributes:
      kills: by moment.
      during_save: kills that left an unfinished checkpoint behind.
      runs: that were brought to their end.
      not_resumed: starts that failed.
      different: runs whose end differs from the undisturbed one in any bit.
      too_much_lost: kills that cost more than an interval and a save.
      most_steps, most_seconds: that a kill cost.
    """

    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    during_save: int = 0
    runs: int = 0
    not_resumed: int = 0
    different: int = 0
    too_much_lost: int = 0
    most_steps: int = 0
    most_seconds: float = 0.0

    @property
    def failures(self) -> int:
        """Everything that should not have happened."""
        return self.not_resumed + self.different + self.too_much_lost

    def rows(self) -> list[tuple[str, object]]:
        """What a table shows."""
        moments = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return [
            ("kills", f"{self.kills.total()} ({moments})"),
            ("kills that left an unfinished checkpoint", self.during_save),
            ("runs brought to their end", self.runs),
            ("starts that could not resume", self.not_resumed),
            ("runs that differ from the undisturbed one", self.different),
            ("kills that cost more than an interval and a save", self.too_much_lost),
            ("most steps lost to a kill", self.most_steps),
            ("most seconds of training lost to a kill", round(self.most_seconds, 2)),
        ]


def kill_runs(runs: TinyRuns, kills: int, seed: int, say: Callable[[str], None]) -> Tally:
    """Kills runs so many times and compares each run's end with an undisturbed one's.

    Args:
      runs: of the tiny network.
      kills: in all.
      seed: of the moments and the intervals between checkpoints.
      say: hears of each kill.
    """
    undisturbed = runs.folder / "undisturbed"
    runs.finish(runs.start(*runs.train_words(undisturbed)))
    random, tally = np.random.default_rng(seed), Tally()
    while tally.kills.total() < kills:
        workdir = runs.folder / f"killed_{seed}_{tally.runs}"
        shutil.rmtree(workdir, ignore_errors=True)
        left = min(KILLS_A_RUN, kills - tally.kills.total())
        _one_run(runs, workdir, left, random, tally, say)
        tally.runs += 1
        if not same_end(runs, workdir, undisturbed):
            tally.different += 1
            say(f"{workdir} differs from the undisturbed run")
        else:
            shutil.rmtree(workdir)
        say(f"{tally.kills.total()} of {kills} kills: {tally}")
    return tally


# Moments of kills in a bucket: before the last files of a save, in its middle, at any time.
BUCKET_MOMENTS = ("commit", "save", "any")


def kill_in_bucket(
    runs: TinyRuns, folder: pathlib.Path, kills: int, seed: int, say: Callable[[str], None]
) -> Tally:
    """Kills runs in a bucket, and compares the end of each with an undisturbed local run.

    Args:
      runs: runs of the tiny network, not forked, because gcsfs does not survive a fork.
      folder: folder of the workdirs in the bucket.
      kills: number of kills.
      seed: seed of the moments and of the intervals between checkpoints.
      say: receives a line for each run.
    """
    undisturbed = runs.folder / "undisturbed"
    runs.finish(runs.start(*runs.train_words(undisturbed)))
    random, tally = np.random.default_rng(seed), Tally()
    moments = itertools.cycle(BUCKET_MOMENTS)
    while tally.kills.total() < kills:
        workdir = folder / f"killed_{seed}_{tally.runs}"
        every = int(random.integers(2, 8))
        words = runs.train_words(workdir, f"checkpoint.every_steps={every}")
        for _ in range(min(KILLS_A_RUN, kills - tally.kills.total())):
            process, moment = runs.start(*words), next(moments)
            _wait_in_bucket(process, workdir, moment, random)
            if process.poll() is not None:
                # It came to its end before the moment did.
                _heard(process, tally, say)
                break
            process.kill()
            _heard(process, tally, say)
            tally.kills[moment] += 1
            tally.during_save += bool(_unfinished(workdir))
        _heard(runs.start(*words), tally, say)
        tally.runs += 1
        if not same_end(runs, workdir, undisturbed):
            tally.different += 1
            say(f"{workdir} differs from the undisturbed run")
        say(f"{tally.kills.total()} of {kills} kills in a bucket: {tally}")
    return tally


def _wait_in_bucket(
    process: Process, workdir: pathlib.Path, moment: str, random: np.random.Generator
) -> None:
    """Waits for a moment of a run in a bucket, or for the end of the run."""
    if moment == "any":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, 40))
        return
    before = _unfinished(workdir)
    while process.poll() is None:
        new = [path for path in _unfinished(workdir) - before if moment == "save" or _whole(path)]
        if new:
            break
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.3 if moment == "save" else 0.02))


def _unfinished(workdir: pathlib.Path) -> set[pathlib.Path]:
    """Returns the directories of the checkpoints that are being saved or deleted."""
    directory = workdir / "checkpoints"
    try:
        paths = [path for path in directory.iterdir() if path.name.isdecimal()]
    except FileNotFoundError:
        # A bucket has no empty directories.
        return set()
    return {path for path in paths if not (path / COMMITTED).exists()}


def _whole(path: pathlib.Path) -> bool:
    """Returns whether only the file that finishes the checkpoint is missing."""
    return (path / "files.json").exists()


def _one_run(
    runs: TinyRuns,
    workdir: pathlib.Path,
    kills: int,
    random: np.random.Generator,
    tally: Tally,
    say: Callable[[str], None],
) -> None:
    every = int(random.integers(2, 8))
    words = runs.train_words(workdir, f"checkpoint.every_steps={every}")
    start_seconds = 10.0
    for _ in range(kills):
        left_before = begun(workdir)
        process = runs.start(*words)
        moment = str(random.choice(list(MOMENTS), p=np.array(list(MOMENTS.values())) / 100))
        watch = Watch(process, workdir)
        if moment == "step":
            step = int(random.integers(min(newest_step(workdir) + 1, NUM_STEPS - 1), NUM_STEPS))
            watch.until(lambda at=step: reached_step(workdir) >= at)
            time.sleep(random.uniform(0, 0.1))
        elif moment == "save":
            count = int(random.integers(1, 4))
            watch.until(lambda at=count, watch=watch: watch.saves >= at)
            time.sleep(random.uniform(0, 0.08))
        else:
            time.sleep(random.uniform(0, start_seconds))
        watch.look()
        if process.poll() is not None:
            # It came to its end before the moment did.
            _heard(process, tally, say)
            return
        process.kill()
        killed = time.monotonic()
        _heard(process, tally, say)
        reached, saved = reached_step(workdir), newest_step(workdir)
        start_seconds = watch.first_step or start_seconds
        tally.kills[moment] += 1
        tally.during_save += bool(begun(workdir) - left_before)
        _count_loss(tally, watch, reached, saved, every, killed, say)
    _heard(runs.start(*words), tally, say)


def _heard(process: Process, tally: Tally, say: Callable[[str], None]) -> None:
    """Waits for a process; neither may it fail, nor has a kill before it damaged a checkpoint."""
    said = process.communicate(timeout=900)[1]
    if process.returncode not in (0, -9) or "damaged" in said:
        tally.not_resumed += 1
        say(f"status {process.returncode}: {said}")


def _count_loss(
    tally: Tally,
    watch: "Watch",
    reached: int,
    saved: int,
    every: int,
    killed: float,
    say: Callable[[str], None],
) -> None:
    """Counts what a kill cost: steps, and seconds since the step that was saved last."""
    lost = max(0, reached - saved)
    tally.most_steps = max(tally.most_steps, lost)
    # Steps before the start are not lost to this kill.
    since = watch.seen.get(saved)
    if since is not None and reached > saved:
        tally.most_seconds = max(tally.most_seconds, killed - since)
    # The save of the step before the last due one is over when the last one's begins, and that is
    # before the next step's row.
    due = (reached - 1) // every * every
    if saved < due - every:
        tally.too_much_lost += 1
        say(f"reached {reached}, saved {saved} at an interval of {every}")


class Watch:
    """Looks at a run from outside.

    Attributes:
      saves: checkpoints that were begun since.
      seen: when each step's row was first seen, in seconds of `time.monotonic`.
      first_step: seconds from the start to the first step.
    """

    def __init__(self, process: Process, workdir: pathlib.Path) -> None:
        self._process, self._workdir = process, workdir
        self._begun: set[str] = set(begun(workdir))
        self._before = reached_step(workdir)
        self._started = time.monotonic()
        self.saves = 0
        self.seen: dict[int, float] = {}
        self.first_step: float | None = None

    def until(self, happened: Callable[[], bool]) -> None:
        """Looks until something has happened or the process has ended."""
        while self._process.poll() is None and not happened():
            self.look()
            time.sleep(POLL_SECONDS)

    def look(self) -> None:
        """Notes what is new."""
        now = begun(self._workdir)
        self.saves += len(now - self._begun)
        self._begun |= now
        reached = reached_step(self._workdir)
        if reached not in self.seen:
            self.seen[reached] = time.monotonic()
            if self.first_step is None and reached != self._before:
                self.first_step = time.monotonic() - self._started


def begun(workdir: pathlib.Path) -> set[str]:
    """Returns the names of checkpoints that are being written."""
    folder = workdir / "checkpoints"
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if "tmp" in name}


def same_end(
    runs: TinyRuns, workdir: pathlib.Path, undisturbed: pathlib.Path, step: int = NUM_STEPS
) -> bool:
    """Whether two runs came to the same variables and went through the same losses, bit for bit."""
    if not runs.forked:
        return _same_end(workdir, undisturbed, step)
    # In a process of its own, since processes that are forked later must find JAX's devices unused.
    pid = os.fork()
    if pid == 0:
        end_with(lambda: int(not _same_end(workdir, undisturbed, step)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _same_end(workdir: pathlib.Path, undisturbed: pathlib.Path, step: int) -> bool:
    ours, theirs = (
        jax.tree.leaves([read_variables(path, str(step), ema) for ema in (False, True)])
        for path in (workdir, undisturbed)
    )
    equal = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True))
    return equal and losses(workdir) == losses(undisturbed)


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """Returns the loss of every step, which also tells whether the same images were seen."""
    return {row["step"]: row["loss"] for row in read_rows(workdir) if "loss" in row}
