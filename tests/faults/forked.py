"""Processes that need not import the code again: they are forked from one that has."""

import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

import jax

# The command's own module imports it late; forked processes are to find it imported.
import deeplab_jax.training  # noqa: F401
from deeplab_jax.cli import main

POLL_SECONDS = 0.02


class Forked:
    """A `deeplab-jax` command in a process of its own, with the ways of `subprocess.Popen`.

    The process that forks must not have used JAX's devices.
    """

    def __init__(
        self, folder: pathlib.Path, words: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Starts the command; its compiled programs are kept in the folder."""
        self.returncode: int | None = None
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(self._said.fileno(), 2)
            os.environ.update(environment)
            end_with(lambda: _command(folder, words))

    def poll(self) -> int | None:
        """Returns the status if it has ended, else None."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[None, str]:
        """Waits for its end and returns what it said on stderr."""
        late = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > late:
                self.kill()
                raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
            time.sleep(POLL_SECONDS)
        self._said.seek(0)
        return None, self._said.read()


def end_with(work: Callable[[], int]) -> None:
    """Ends this process with what work returns, whatever happens."""
    status = 1
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _command(folder: pathlib.Path, words: Sequence[str]) -> int:
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return main.run(list(words), main.Console())
