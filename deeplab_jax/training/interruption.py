"""Ctrl-C and SIGTERM as requests that training answers between two steps."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether the process was asked to stop.

    The first signal is noted, so that a checkpoint can be saved; a second one acts at once. Outside
    the main thread, where Python hears no signals, nothing is changed.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        asked.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
