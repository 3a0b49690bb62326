"""Profiler traces of a few training steps, on request."""

import contextlib
import pathlib
import shutil
import signal
import tempfile
import threading

import jax

from deeplab_jax.files import is_local
from deeplab_jax.parallel import is_first_host
from deeplab_jax.reporter import Reporter

TRACES = "traces"
# A file of this name in the workdir requests a trace in all processes.
REQUEST_FILE = "trace"
# Number of steps in a trace, and number of steps that a process trains before the trace of
# `--profile` begins.
TRACED_STEPS, PROFILED_AFTER = 5, 2
# Seconds between two checks whether REQUEST_FILE exists.
POLL_SECONDS = 5.0
# Signal that requests a trace in the process that receives it.
SIGNAL = getattr(signal, "SIGUSR1", None)


class Traces(contextlib.AbstractContextManager["Traces"]):
    """Context manager that writes profiler traces of five training steps each.

    A trace can be requested in three ways:
    - The flag `--profile` requests a trace of the third to seventh step after the start of each
      process. This trace is written to `workdir/profile`.
    - The signal SIGUSR1 requests a trace of the next steps of the process that receives it.
    - A file `trace` in the workdir requests a trace of the same steps in all processes. The trace
      begins after a step at which the processes log. Process 0 checks for the file every few
      seconds and deletes it.

    The traces of SIGUSR1 and of the file `trace` are written to `workdir/traces/step_N`, where N is
    the first traced step. Jobs of several processes have a subdirectory per process. If a trace
    fails, a warning is reported.
    """

    def __init__(self, workdir: pathlib.Path, profile: bool, reporter: Reporter) -> None:
        """Prepares traces of a run.

        Args:
          workdir: directory of the run.
          profile: whether the flag `--profile` requests a trace.
          reporter: receives a message for each trace, and warnings.
        """
        self._workdir, self._reporter = workdir, reporter
        self._profile_after = PROFILED_AFTER if profile else None
        self._signaled, self._found, self._done = (threading.Event() for _ in range(3))
        self._agreed: int | None = None
        self._due = False
        self._target: pathlib.Path | None = None
        self._last = 0

    def __enter__(self) -> "Traces":
        """Installs the handler of SIGUSR1.

        Process 0 also starts the thread that checks whether the file `trace` exists.
        """
        self._before = None
        if SIGNAL is not None and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(SIGNAL, lambda *_: self._signaled.set())
        if is_first_host():
            threading.Thread(target=self._look, name="trace requests", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the current trace, if there is one, and restores the previous signal handler."""
        self._done.set()
        if self._before is not None and SIGNAL is not None:
            signal.signal(SIGNAL, self._before)
        self._stop()

    def _look(self) -> None:
        request = self._workdir / REQUEST_FILE
        while not self._done.wait(POLL_SECONDS):
            # If a bucket cannot be reached for some time, the run continues. Not all errors of its
            # library are OSErrors, for example HttpError of gcsfs.
            with contextlib.suppress(Exception):
                if request.is_file():
                    request.unlink()
                    self._found.set()

    def agreed_start(self, step: int, interval: int) -> int | None:
        """Returns the step after which all processes begin a trace that a user has requested.

        Users request a trace with a file `trace` in the workdir. Every process calls this method
        when it logs, and all use the result of process 0 (see `agree`). The result is None before
        the first request. At the first call after a request, it is `step` in a single process.
        With several processes, it is `step + interval`, so that every process has received it
        before the trace begins. Later calls return the same step until the next request.

        Args:
          step: step at which the processes log.
          interval: number of steps until the processes log again.
        """
        if self._found.is_set():
            self._found.clear()
            self._agreed = step + (interval if jax.process_count() > 1 else 0)
        return self._agreed

    def agree(self, step: int, agreed: int | None) -> None:
        """Schedules a trace of the steps after `step` in this process if `agreed` is `step`.

        If another trace is in progress, the scheduled trace begins after it.

        Every process calls this method when it logs, after the processes have exchanged the results
        of `agreed_start`.

        Args:
          step: step at which the processes log.
          agreed: latest result of `agreed_start` in process 0, the step after which the trace
            begins; None: no trace.
        """
        if agreed == step:
            self._due = True

    def before_step(self, step: int, steps_done: int) -> None:
        """Begins a trace if one was requested. Must be called before each training step.

        Args:
          step: number of the training step that follows.
          steps_done: number of steps that this process has trained since its start.
        """
        if self._target is not None:
            return
        if self._profile_after is not None and steps_done >= self._profile_after:
            self._profile_after = None
            self._start(self._workdir / "profile", step)
        elif self._signaled.is_set() or self._due:
            self._signaled.clear()
            self._due = False
            self._start(self._workdir / TRACES / f"step_{step:06}", step)

    def after_step(self, step: int, loss: jax.Array) -> None:
        """Ends the current trace after its last step. Must be called after each training step.

        The devices may still be computing `step`. If this is the last step of the trace, the method
        waits until the devices have computed `loss`, and then ends the trace.

        Args:
          step: number of the training step.
          loss: loss of the training step.
        """
        if self._target is not None and step >= self._last:
            jax.block_until_ready(loss)
            self._stop()

    def _start(self, target: pathlib.Path, step: int) -> None:
        if jax.process_count() > 1:
            target = target / f"process_{jax.process_index()}"
        local = target if is_local(target) else pathlib.Path(tempfile.mkdtemp(prefix="trace-"))
        try:
            jax.profiler.start_trace(str(local))
        except Exception as error:
            self._warn(error)
            return
        self._target, self._local, self._last = target, local, step + TRACED_STEPS - 1

    def _stop(self) -> None:
        """Ends the current trace and writes it, if there is one."""
        target, self._target = self._target, None
        if target is None:
            return
        try:
            jax.profiler.stop_trace()
            if not is_local(target):
                _copy(self._local, target)
                shutil.rmtree(self._local, ignore_errors=True)
        except Exception as error:
            self._warn(error)
        else:
            self._reporter.message(f"profiler trace of the steps up to {self._last}: {target}")

    def _warn(self, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200]
        self._reporter.warning(f"could not write a profiler trace: {reason}; training continues")


def _copy(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the files below a directory on this machine into a bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
