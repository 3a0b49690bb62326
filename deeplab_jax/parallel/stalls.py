"""Watchdog that ends a training process if it makes no progress."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel.failures import STALLED, announce, print_stacks

# Maximum time in seconds that the main thread may take to clean up before the process is ended.
GRACE_SECONDS = 20.0
# Exit status of a process that could not clean up.
STALLED_STATUS = 4
# Signal that interrupts the main thread, even while the thread waits for a lock.
SIGNAL = getattr(signal, "SIGUSR2", signal.SIGINT)

# Function progress(doing, factor=1); see `watchdog`.
Progress = Callable[..., None]


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[Progress]:
    """Raises an error in the main thread if the `with` block reports no progress for some time.

    In this case, the stacks of all threads are printed, and the error is reported to the other
    processes of the job. If the main thread waits outside Python, or if it takes more than 20 s to
    clean up, the process ends with the exit status 4. In threads other than the main thread, the
    watchdog is disabled.

    The main thread is interrupted by SIGUSR2. If another process sends this signal, the handler
    that was installed before is called. Without such a handler, the signal is ignored.

    Args:
      seconds: maximum time between two calls of the yielded function; 0 disables the watchdog.

    Yields:
      Function progress(doing, factor=1). It reports progress and names the next activity, `doing`,
      which may take up to `factor * seconds`.

    Raises:
      DeepLabError: an activity took too long. The message names the activity.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        yield lambda doing, factor=1: None
        return
    # A handler that was not installed from Python is reported as None, and cannot be restored.
    before = signal.getsignal(SIGNAL) or signal.SIG_DFL
    watch = _Watch(seconds, before)
    signal.signal(SIGNAL, watch.interrupt)
    watch.thread.start()
    try:
        yield watch.progress
    finally:
        watch.done.set()
        signal.signal(SIGNAL, before)


class _Watch:
    """Thread of the watchdog, and the state that it shares with the main thread."""

    def __init__(self, seconds: float, before: Any) -> None:
        self.seconds, self.before = seconds, before
        self.done = threading.Event()
        self.message = ""
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.progress("starting")

    def progress(self, doing: str, factor: float = 1) -> None:
        self.doing, self.limit = doing, self.seconds * factor
        self.deadline = time.monotonic() + self.limit

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.message:
            raise DeepLabError(self.message)
        # The signal is not from the watchdog: submitit, for example, announces preemption with it.
        if callable(self.before):
            self.before(number, frame)

    def _watch(self) -> None:
        while not self.done.wait(min(1.0, self.seconds / 10)):
            if time.monotonic() > self.deadline:
                self._end()
                return

    def _end(self) -> None:
        self.message = (
            f"{STALLED} for {self.limit:.0f} s while {self.doing}. The stacks of all threads are "
            "printed above. Run the same command again to resume from the last checkpoint; "
            "training.watchdog_seconds sets the time limit (0: no limit)"
        )
        print_stacks()
        if jax.process_count() > 1:
            announce(self.message)
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
        cleaned_up = self.done.wait(GRACE_SECONDS)
        # At exit, Python waits for child processes, even if they are stopped.
        for child in multiprocessing.active_children():
            child.kill()
        if not cleaned_up:
            print(f"error: {self.message}", file=sys.stderr, flush=True)
            os._exit(STALLED_STATUS)
