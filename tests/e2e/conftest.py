"""The real commands in real processes, on a small data set and a small network."""

import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import filelock
import pytest
from tiny_recipe import write_tiny_recipe

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.training.writers import read_rows


@dataclasses.dataclass(frozen=True)
class Commands:
    """Runs `deeplab-jax` in processes of their own.

    Attributes:
      config: path of a config that trains 12 steps on `shapes`.
      data_dir: holds the prepared `shapes`.
    """

    config: pathlib.Path
    data_dir: pathlib.Path

    def start(self, *words: object, **environment: str) -> subprocess.Popen:
        """Starts a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "deeplab_jax.cli.main", *map(str, words)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *words: object, status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess:
        """Runs a command to its end and checks its exit status."""
        with self.start(*words, **environment) as process:
            out, err = process.communicate(timeout=600)
        assert process.returncode == status, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run_here(self, *words: object, status: int = 0) -> subprocess.CompletedProcess:
        """Runs a command in this process and checks its exit status."""
        arguments, out, err = [str(word) for word in words], io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = run(arguments, Console())
        assert found == status, err.getvalue()
        return subprocess.CompletedProcess(arguments, found, out.getvalue(), err.getvalue())

    def train_words(self, workdir: pathlib.Path, *overrides: str) -> list[str]:
        """Returns the words of a training command."""
        return [
            "train",
            f"--config={self.config}",
            f"--workdir={workdir}",
            f"--config.data.data_dir={self.data_dir}",
            *(f"--config.{override}" for override in overrides),
        ]

    def stop_at_step(
        self, workdir: pathlib.Path, step: int, number: signal.Signals
    ) -> subprocess.CompletedProcess:
        """Starts training and sends it a signal once it has reported a step."""
        with self.start(*self.train_words(workdir)) as process:
            while process.poll() is None:
                if any(row["step"] >= step for row in read_rows(workdir)):
                    process.send_signal(number)
                    break
                time.sleep(0.01)
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[pathlib.Path], object]
) -> pathlib.Path:
    """Returns a folder that all worker processes of this test session share.

    Args:
      factory: makes the folders of one worker.
      name: name of the folder.
      make: fills the folder; the first worker that needs it calls it.
    """
    base = factory.getbasetemp()
    # Each worker of pytest-xdist has a folder in that of the session.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    complete = folder.with_suffix(".complete")
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The commands, with `shapes` prepared."""

    def make(folder: pathlib.Path) -> None:
        folder.mkdir()
        write_tiny_recipe(
            folder / "tiny.py",
            training__num_steps=12,
            training__batch_size=8,
            evaluation__every_steps=6,
            evaluation__limit=6,
            checkpoint__every_steps=3,
            log_every_steps=1,
        )
        Commands(folder / "tiny.py", folder / "data").run(
            "prepare",
            "shapes",
            f"--data_dir={folder / 'data'}",
            *("--num_train=24", "--num_val=7", "--size=48"),
        )

    folder = made_once(tmp_path_factory, "e2e", make)
    return Commands(folder / "tiny.py", folder / "data")


@pytest.fixture(scope="session")
def trained(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The workdir of a run that nothing interrupted. No test may write into it."""
    return made_once(
        tmp_path_factory, "trained", lambda workdir: commands.run(*commands.train_words(workdir))
    )


@pytest.fixture
def read_lines() -> Callable[[str], list[str]]:
    """Splits what a command said into its lines."""
    return lambda text: [line for line in text.splitlines() if line.strip()]
