"""A process without progress prints its stacks and ends."""

import signal
import subprocess
import sys

import pytest

from deeplab_jax.parallel import watchdog
from deeplab_jax.parallel.stalls import SIGNAL, STALLED_STATUS

SCRIPT = """
import signal, sys, threading, time
from deeplab_jax.parallel import stalls
stalls.GRACE_SECONDS = 1
with stalls.watchdog(0.5) as progress:
    for step in range(4):
        time.sleep(0.25)
        progress(f"reading the batch of step {step}")
    try:
        threading.Event().wait()
    finally:
        if sys.argv[1] == "cleanup hangs":
            threading.Event().wait()
"""


@pytest.mark.parametrize(("case", "status"), [("", 1), ("cleanup hangs", STALLED_STATUS)])
def test_a_blocked_process_ends_with_its_stacks(case, status):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, case], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == status, done.stderr
    assert "no progress for 0 s while reading the batch of step 3" in done.stderr
    assert "stacks of all threads of process 0" in done.stderr
    assert 'File "<string>", line' in done.stderr


def test_progress_keeps_the_process_alive_and_the_handler_is_restored():
    before = signal.getsignal(SIGNAL)
    with watchdog(0) as progress:
        progress("nothing")
    with watchdog(1000) as progress:
        progress("compiling", 12)
    assert signal.getsignal(SIGNAL) == before


def test_a_signal_of_another_process_calls_the_handler_that_was_installed_before():
    """As the handler with which submitit requeues a preempted job."""
    received = []
    before = signal.signal(SIGNAL, lambda number, frame: received.append(number))
    try:
        with watchdog(1000):
            signal.raise_signal(SIGNAL)
    finally:
        signal.signal(SIGNAL, before)
    assert received == [SIGNAL]


def test_a_signal_of_another_process_without_a_handler_does_not_end_the_run():
    assert signal.getsignal(SIGNAL) is signal.SIG_DFL
    with watchdog(1000):
        signal.raise_signal(SIGNAL)
