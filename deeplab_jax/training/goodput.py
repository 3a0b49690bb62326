"""Goodput of a training run: fraction of the time that was used for training and validation.

The fraction is computed over all starts of the run, from the log `timeline.jsonl` in the workdir.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.training.writers import RowFile, read_row_file

TIMELINE_FILE = "timeline.jsonl"
START, TRAINING, STEPS, END = "start", "training", "steps", "end"
# Fields in rows of the timeline: time of an activity since the previous row, in seconds.
INPUT, CHECKPOINT, VALIDATION = "input_seconds", "checkpoint_seconds", "validation_seconds"
ACTIVITIES = (INPUT, CHECKPOINT, VALIDATION)
Event = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Goodput:
    """Breakdown of the time of a training run in seconds, summed over all starts of the run.

    goodput = `productive` ÷ (`wall` − `lost` − `start_up`)

    Attributes:
      starts: number of starts of the run.
      wall: time from the start of each process to its last row in the timeline. The time between
        two starts is not counted.
      start_up: time from the start of each process to its first training step, for imports,
        restoring the checkpoint, compiling, and reading the first batch. If a start did not reach a
        training step, all its time is start-up time.
      lost: time of steps that a later start repeated, because they came after the last checkpoint.
        It depends on the interval between checkpoints and on the moments of the interruptions.
      productive: time of training steps and validations that were not repeated. It excludes `input`
        and `checkpoint`, and the time at the end for saving the last checkpoint and for drawing
        pictures.
      input: time during which the devices waited for a batch, without repeated steps.
      checkpoint: time during which saving of checkpoints blocked training, without repeated steps.
      longest_start_up: longest start-up time among the starts that reached a training step.
    """

    starts: int
    wall: float
    start_up: float
    lost: float
    productive: float
    input: float
    checkpoint: float
    longest_start_up: float

    @property
    def fraction(self) -> float:
        """Goodput in 0..1; NaN before the first training step."""
        available = self.wall - self.lost - self.start_up
        return self.productive / available if available > 0 else math.nan

    def describe(self) -> dict[str, float]:
        """Returns every quantity by name, for a JSON file."""
        return {"goodput": self.fraction, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        starts = "1 start" if self.starts == 1 else f"{self.starts} starts"
        return (
            f"goodput {self.fraction:.3f} over {starts}: {self.productive:.0f} s productive of "
            f"{self.wall:.0f} s; start-up {self.start_up:.0f} s (longest "
            f"{self.longest_start_up:.0f} s), repeated steps {self.lost:.0f} s, waiting for input "
            f"{self.input:.0f} s, for checkpoints {self.checkpoint:.0f} s"
        )


def goodput(events: Sequence[Event]) -> Goodput:
    """Computes the goodput of a workdir from the rows of its timeline; see `Goodput`."""
    starts: list[list[Event]] = []
    for event in events:
        if event["event"] == START:
            starts.append([])
        if starts:
            starts[-1].append(event)
    # First step of each start. Later steps of the previous start were repeated.
    resumed = [
        next((one["step"] for one in start if one["event"] == TRAINING), math.inf)
        for start in starts
    ]
    kept = [min(resumed[number + 1 :], default=math.inf) for number in range(len(starts))]
    found = [_of_start(start, until) for start, until in zip(starts, kept, strict=True)]
    totals = {
        name: sum(getattr(one, name) for one in found)
        for name in ("wall", "start_up", "lost", "productive", "input", "checkpoint")
    }
    longest = max((one.longest_start_up for one in found), default=0.0)
    return Goodput(len(starts), **totals, longest_start_up=longest)


def _of_start(events: Sequence[Event], kept: float) -> Goodput:
    """Computes the goodput of one start of a run.

    Args:
      events: rows of the timeline that this start wrote.
      kept: smallest step from which a later start resumed; infinity if no later start reached a
        training step. The steps of this start after `kept` are lost, because they were repeated.
    """
    first = next((n for n, one in enumerate(events) if one["event"] == TRAINING), None)
    wall = _seconds(events[0], events[-1])
    if first is None:
        return Goodput(1, wall, wall, 0.0, 0.0, 0.0, 0.0, 0.0)
    start_up = _seconds(events[0], events[first])
    lost = productive = 0.0
    spent = dict.fromkeys(ACTIVITIES, 0.0)
    for before, after in itertools.pairwise(events[first:]):
        seconds, fraction = _seconds(before, after), _kept_fraction(before, after, kept)
        lost += (1 - fraction) * seconds
        for name in ACTIVITIES:
            spent[name] += fraction * after.get(name, 0.0)
        waited = after.get(INPUT, 0.0) + after.get(CHECKPOINT, 0.0)
        if after["event"] == STEPS:
            productive += fraction * max(0.0, seconds - waited)
    return Goodput(1, wall, start_up, lost, productive, spent[INPUT], spent[CHECKPOINT], start_up)


def _seconds(before: Event, after: Event) -> float:
    # The clock of a host can be set back.
    return max(0.0, after["time"] - before["time"])


def _kept_fraction(before: Event, after: Event, kept: float) -> float:
    """Returns which fraction of the steps between two events was not lost.

    A later start resumed from step `kept`, so all steps after `kept` are lost.
    """
    first, last = before["step"], after["step"]
    if last <= kept:
        return 1.0
    return max(0.0, kept - first) / (last - first) if last > first else 0.0


class Timeline(contextlib.AbstractContextManager["Timeline"]):
    """Writes `timeline.jsonl`, a log of the use of time in a run; every start appends to it."""

    def __init__(self, workdir: pathlib.Path, started: float) -> None:
        """Opens the log and records the start.

        Args:
          workdir: directory of the run.
          started: time at which the process started, in seconds since 1970.
        """
        self._events: list[Event] = read_timeline(workdir)
        self._file = RowFile(workdir / TIMELINE_FILE, self._events)
        self._totals = dict.fromkeys(ACTIVITIES, 0.0)
        self._step: int | None = None
        self._add({"event": START, "time": started})

    def __exit__(self, *error: object) -> None:
        """Records the end of this start and closes the log."""
        end = {} if self._step is None else {"step": self._step}
        self._add({"event": END, "time": time.time(), **end})
        self._file.close(failed=error[0] is not None)

    def training(self, step: int) -> None:
        """Records that the first training step of this start, `step` + 1, begins now."""
        self._step = step
        self._add({"event": TRAINING, "time": time.time(), "step": step})

    def steps(self, step: int, totals: Mapping[str, float]) -> None:
        """Records the steps that have ended since the previous record.

        Args:
          step: last step that has ended.
          totals: {activity: seconds} for the activities in ACTIVITIES, such as `input_seconds`. The
            seconds are summed over all steps of this start, not only over those since the previous
            record.
        """
        spent = {name: totals.get(name, 0.0) - self._totals[name] for name in ACTIVITIES}
        self._totals = {name: totals.get(name, 0.0) for name in ACTIVITIES}
        self._step = step
        rounded = {name: round(seconds, 6) for name, seconds in spent.items() if seconds > 0}
        self._add({"event": STEPS, "time": time.time(), "step": step, **rounded})

    def goodput(self) -> Goodput:
        """Returns the goodput over all starts until now."""
        return goodput(self._events)

    def flush(self) -> None:
        """Writes all rows to the bucket if the workdir is in a bucket."""
        self._file.flush()

    def _add(self, event: Event) -> None:
        self._events.append(event)
        self._file.write(event)


def read_timeline(workdir: pathlib.Path) -> list[Event]:
    """Returns the rows of `timeline.jsonl`, without an incomplete last line."""
    return list(read_row_file(workdir / TIMELINE_FILE))


def process_start() -> float:
    """Returns the time at which this process started, in seconds since 1970."""
    try:
        # The 22nd field, which is field 19 after the name in parentheses, is the start time in
        # clock ticks since the machine started.
        fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        seconds = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return min(time.time(), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + seconds)
    except (OSError, AttributeError, IndexError, ValueError):
        # Other systems than Linux: the time of the call.
        return time.time()
