"""Processes of a run that die, stand still or never come."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from tiny_run import TinyRuns, newest_step, reached_step

from deeplab_jax.training.writers import read_rows

# In which every one of these must end, with its message.
LIMIT_SECONDS = 150
START_SECONDS = 600
# What a message may say; the third and fourth are JAX's own, which ends processes by itself.
CLEAR = (
    "data worker",
    "connection to another process of the job was lost",
    "tasks are unhealthy",
    "task died",
    "of the job failed",
    "not all processes of the job started",
    "not all other processes started",
    "no progress for",
    "is in use by",
    "differs from process 0",
    "this process found no others",
    "cannot be written",
    "the same command resumes the run",
)
# Images of a validation that takes at least ten seconds.
LONG_VALIDATION = 4000
ENDLESS = "training.num_steps=1000000"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a process ended after another's fault.

    Attributes:
      fault: what was done.
      seconds: from the fault to the end; None where it did not end within the limit.
      status: that it ended with.
      message: the line on stderr that says what happened; empty where none does.
    """

    fault: str
    seconds: float | None
    status: int | None
    message: str

    @property
    def good(self) -> bool:
        """Whether it ended in time, as failed, with a line that says what happened."""
        return self.seconds is not None and self.status not in (0, None) and bool(self.message)


def ending(fault: str, process: subprocess.Popen, started: float) -> Ending:
    """Waits for the end of a process."""
    try:
        said = process.communicate(timeout=max(1, started + LIMIT_SECONDS - time.monotonic()))[1]
        seconds = time.monotonic() - started
    except subprocess.TimeoutExpired:
        process.kill()
        said, seconds = process.communicate()[1], None
    clear = [line for line in said.splitlines() if any(words in line for words in CLEAR)]
    return Ending(fault, seconds, process.returncode, clear[-1].strip()[:200] if clear else "")


def killed_worker(runs: TinyRuns) -> Ending:
    """`kill -9` of a process that reads data."""
    workdir = _workdir(runs, "killed_worker")
    process = runs.start(*runs.train_words(workdir, ENDLESS, "data.workers=1"))
    _wait_for(lambda: reached_step(workdir) >= 3, [process])
    started = time.monotonic()
    for pid in workers(process.pid):
        os.kill(pid, signal.SIGKILL)
    return ending("a data worker is killed", process, started)


def stopped_worker(runs: TinyRuns) -> Ending:
    """SIGSTOP for a process that reads data."""
    workdir = _workdir(runs, "stopped_worker")
    words = runs.train_words(workdir, ENDLESS, "data.workers=1", "training.watchdog_seconds=20")
    process = runs.start(*words)
    _wait_for(lambda: reached_step(workdir) >= 3, [process])
    started, stopped = time.monotonic(), workers(process.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        return ending("a data worker is stopped", process, started)
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def second_run(runs: TinyRuns) -> Ending:
    """A second run in the workdir of one that trains."""
    workdir = _workdir(runs, "second_run")
    first = runs.start(*runs.train_words(workdir, ENDLESS))
    try:
        _wait_for(lambda: reached_step(workdir) >= 3, [first])
        started = time.monotonic()
        end = ending("a second run", runs.start(*runs.train_words(workdir, ENDLESS)), started)
        assert first.poll() is None
        return end
    finally:
        _end([first])


def disagreeing_hosts(runs: TinyRuns) -> Ending:
    """Two processes of a job with different learning rates; returns how the second one ends."""
    started = time.monotonic()
    rate = "schedule.base_learning_rate"
    job = _job(runs, _workdir(runs, "disagreement"), range(2), [f"{rate}=0.01", f"{rate}=0.02"])
    try:
        return ending("a host has another config", job[1], started)
    finally:
        _end(job)


def other_data(runs: TinyRuns) -> Ending:
    """Two processes of a job with different data sets; returns how the second one ends."""
    other = runs.folder / "other_data"
    if not other.exists():
        words = ["prepare", "shapes", f"--data_dir={other}", "--size=33"]
        runs.finish(runs.start(*words, "--num_train=8", "--num_val=3"))
    started = time.monotonic()
    job = _job(runs, _workdir(runs, "other"), range(2), ["", f"data.data_dir={other}"])
    try:
        return ending("a host has other data", job[1], started)
    finally:
        _end(job)


def unwritable_checkpoints(runs: TinyRuns) -> Ending:
    """A file where the directory of the checkpoints should be."""
    workdir = _workdir(runs, "unwritable")
    workdir.mkdir()
    (workdir / "checkpoints").touch()
    started = time.monotonic()
    process = runs.start(*runs.train_words(workdir))
    return ending("checkpoints cannot be written", process, started)


def stopped_validation(runs: TinyRuns) -> Ending:
    """SIGTERM in a validation that takes longer than the notice of a machine.

    Asserts that the run saved its step and left out the validation.
    """
    data = runs.folder / "long_validation"
    if not data.exists():
        words = ["prepare", "shapes", f"--data_dir={data}", "--size=33"]
        runs.finish(runs.start(*words, "--num_train=8", f"--num_val={LONG_VALIDATION}"))
    workdir = _workdir(runs, "stopped_validation")
    overrides = (f"data.data_dir={data}", "evaluation.limit=None", "evaluation.every_steps=3")
    process = runs.start(*runs.train_words(workdir, ENDLESS, *overrides, "evaluation.batch_size=1"))
    _wait_for(lambda: reached_step(workdir) >= 3, [process])
    # The row of step 3 is written just before its validation.
    time.sleep(1)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    end = ending("SIGTERM during a validation", process, started)
    rows = read_rows(workdir)
    assert newest_step(workdir) == max(row["step"] for row in rows) == 3, rows
    assert not any("validation_mean_iou" in row for row in rows), rows
    return end


def lonely_host(runs: TinyRuns) -> Ending:
    """A process of a Kubernetes job that finds no others."""
    started = time.monotonic()
    cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "JOB_COMPLETION_INDEX": "1"}
    process = runs.start(*runs.train_words(_workdir(runs, "lonely_host")), **cluster)
    return ending("a host finds no others", process, started)


def workers(pid: int) -> list[int]:
    """Returns the processes below one that read data."""
    below = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        # Threads come and go.
        with contextlib.suppress(FileNotFoundError):
            below += map(int, (task / "children").read_text().split())
    command = {child: pathlib.Path(f"/proc/{child}/cmdline").read_bytes() for child in below}
    return [child for child, words in command.items() if b"spawn_main" in words]


def lost_host(runs: TinyRuns, number: signal.Signals, fault: str) -> Ending:
    """A signal to one of two processes of a job; returns how the first one ends."""
    workdir = _workdir(runs, f"host_{number.name}")
    job = _job(runs, workdir, range(2))
    try:
        _wait_for(lambda: reached_step(workdir) >= 3, job)
        started = time.monotonic()
        job[1].send_signal(number)
        return ending(fault, job[0], started)
    finally:
        _end(job)


def absent_host(runs: TinyRuns) -> Ending:
    """A job of two processes of which one never comes."""
    started = time.monotonic()
    job = _job(runs, _workdir(runs, "absent_host"), range(1))
    try:
        return ending("a host never comes up", job[0], started)
    finally:
        _end(job)


def process_faults(runs: TinyRuns, say: Callable[[str], None]) -> list[Ending]:
    """Goes through all of these; tells of each."""
    found = []
    for fault in (
        lambda: killed_worker(runs),
        lambda: lost_host(runs, signal.SIGKILL, "a host dies"),
        lambda: lost_host(runs, signal.SIGSTOP, "a host stands still"),
        lambda: absent_host(runs),
        lambda: stopped_worker(runs),
        lambda: second_run(runs),
        lambda: disagreeing_hosts(runs),
        lambda: other_data(runs),
        lambda: lonely_host(runs),
        lambda: unwritable_checkpoints(runs),
        lambda: stopped_validation(runs),
    ):
        found.append(fault())
        say(str(found[-1]))
    return found


def _job(
    runs: TinyRuns, workdir: pathlib.Path, present: range, overrides: Sequence[str] = ("", "")
) -> list[subprocess.Popen]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    address = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    own = [runs.train_words(workdir, *filter(None, [ENDLESS, override])) for override in overrides]
    return [runs.start(*own[number], *address, f"--process_id={number}") for number in present]


def _workdir(runs: TinyRuns, name: str) -> pathlib.Path:
    shutil.rmtree(runs.folder / name, ignore_errors=True)
    return runs.folder / name


def _wait_for(happened: Callable[[], bool], processes: list[subprocess.Popen]) -> None:
    late = time.monotonic() + START_SECONDS
    while not happened():
        for process in processes:
            if process.poll() is not None or time.monotonic() > late:
                process.kill()
                raise AssertionError(f"it did not begin: {process.communicate()[1]}")
        time.sleep(0.05)


def _end(job: list[subprocess.Popen]) -> None:
    for process in job:
        process.kill()
        with contextlib.suppress(ValueError):
            process.communicate()
