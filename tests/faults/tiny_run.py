"""A real `deeplab-jax train` in a process of its own, as small and as quick to start as can be."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from forked import Forked
from tiny_recipe import write_tiny_recipe

from deeplab_jax.checkpointing.saved_states import saved_steps
from deeplab_jax.training.writers import read_rows

NUM_STEPS = 40
Process = subprocess.Popen | Forked


@dataclasses.dataclass(frozen=True)
class TinyRuns:
    """Makes processes that train a tiny network.

    Attributes:
      folder: where all is kept: config, data, compiled programs.
      forked: processes are forked from this one, which has imported the code; else each imports it
        itself, which takes twice the time.
    """

    folder: pathlib.Path
    forked: bool = False

    @classmethod
    def prepare(cls, folder: pathlib.Path, forked: bool = False) -> "TinyRuns":
        """Writes config and data."""
        folder.mkdir(parents=True, exist_ok=True)
        runs = cls(folder, forked)
        write_tiny_recipe(
            folder / "tiny.py",
            augmentation__crop_size=(33, 33),
            training__num_steps=NUM_STEPS,
            training__batch_size=2,
            evaluation__every_steps=1000,
            evaluation__limit=2,
            evaluation__batch_size=2,
            checkpoint__every_steps=4,
            log_every_steps=1,
        )
        if not (folder / "data").exists():
            words = ["prepare", "shapes", f"--data_dir={folder / 'data'}"]
            runs.finish(runs.start(*words, "--num_train=8", "--num_val=2", "--size=33"))
        return runs

    def start(self, *words: object, **environment: str) -> Process:
        """Starts `deeplab-jax` with these words."""
        if self.forked:
            return Forked(self.folder, list(map(str, words)), environment)
        compiled = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")}
        # Programs of the tiny network compile faster than the second from which JAX keeps them.
        quick = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(
            [sys.executable, "-m", "deeplab_jax.cli.main", *map(str, words)],
            env=os.environ | compiled | quick | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train_words(self, workdir: pathlib.Path, *overrides: str) -> list[str]:
        """Returns the words of a training command."""
        return [
            "train",
            f"--config={self.folder / 'tiny.py'}",
            f"--workdir={workdir}",
            f"--config.data.data_dir={self.folder / 'data'}",
            *(f"--config.{override}" for override in overrides),
        ]

    def finish(
        self, process: Process, legal: Sequence[int] = (0,), timeout: float | None = 900
    ) -> str:
        """Waits for a process and returns its standard error.

        Args:
          process: process that `start` returned.
          legal: exit statuses that are not an error.
          timeout: maximum waiting time in seconds; None: no limit.

        Raises:
          AssertionError: the process ended with another status.
          subprocess.TimeoutExpired: the process did not end in time.
        """
        said = process.communicate(timeout=timeout)[1]
        assert process.returncode in legal, f"status {process.returncode}: {said}"
        return said


def reached_step(workdir: pathlib.Path) -> int:
    """Returns the last step that the run has told of."""
    return max((row["step"] for row in read_rows(workdir)), default=0)


def newest_step(workdir: pathlib.Path) -> int:
    """Returns the step of the newest checkpoint; 0 where there is none."""
    return max(saved_steps(workdir), default=0)
