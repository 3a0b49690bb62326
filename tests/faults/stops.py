"""SIGTERM, by which machines that are taken away announce it: no step is lost."""

import dataclasses
import pathlib
import shutil
import signal
from collections.abc import Callable

import numpy as np
from kills import Watch, same_end
from tiny_run import NUM_STEPS, TinyRuns, newest_step, reached_step

INTERRUPTED = 130


@dataclasses.dataclass
class Tally:
    """What came of being asked to stop.

    Attributes:
      asked: times.
      lost: steps.
      wrong: what else should not have happened, a line each.
    """

    asked: int = 0
    lost: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)

    def rows(self) -> list[tuple[str, object]]:
        """What a table shows."""
        return [
            ("SIGTERM", self.asked),
            ("steps lost to it", self.lost),
            ("other things wrong with it", len(self.wrong)),
        ]


def stop_run(
    runs: TinyRuns, undisturbed: pathlib.Path, times: int, seed: int, say: Callable[[str], None]
) -> Tally:
    """Asks a run to stop so many times, after random steps, until it is done."""
    random, tally = np.random.default_rng(seed), Tally()
    workdir = runs.folder / "asked"
    shutil.rmtree(workdir, ignore_errors=True)
    words = runs.train_words(workdir)
    steps = np.sort(random.choice(np.arange(1, NUM_STEPS - 1), times, replace=False))
    for step in steps.tolist():
        # A slow machine may have gone on beyond it; a process that only starts has nothing to save.
        step = max(step, reached_step(workdir) + 1)
        process = runs.start(*words)
        Watch(process, workdir).until(lambda at=step: reached_step(workdir) >= at)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=900)[1]
        if process.returncode == 0:
            break
        tally.asked += 1
        tally.lost += reached_step(workdir) - newest_step(workdir)
        if process.returncode != INTERRUPTED or "the same command resumes the run" not in said:
            tally.wrong.append(said)
    runs.finish(runs.start(*words))
    if not same_end(runs, workdir, undisturbed):
        tally.wrong.append("it differs from the undisturbed run")
    say(str(tally))
    return tally
