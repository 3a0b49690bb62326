"""Two runs never write into one workdir at the same time."""

import concurrent.futures
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading

import pytest
from outage import ERRORS, failing
from reporters import RecordingReporter

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text
from deeplab_jax.training import lock
from deeplab_jax.training.lock import LOCK_FILE, workdir_lock


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def reporter():
    return RecordingReporter()


def write_lock(workdir, **owner):
    content = {"host": "elsewhere", "process": 1, "token": "other", "heartbeat": 3} | owner
    workdir.mkdir(exist_ok=True)
    write_text(workdir / LOCK_FILE, json.dumps(content))


def write_lock_of_dead_process(workdir):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    # Otherwise, the lock is as this release writes it.
    write_lock(workdir, **json.loads(lock._content("other", 3)) | {"process": dead.pid})
    return dead.pid


def test_a_second_run_is_refused_and_the_lock_is_removed_at_the_end(tmp_path, reporter):
    with (
        workdir_lock(tmp_path, reporter),
        pytest.raises(DeepLabError, match=r"is in use by process \d+ on .*another --workdir"),
        workdir_lock(tmp_path, reporter),
    ):
        pass
    assert not (tmp_path / LOCK_FILE).exists()
    with workdir_lock(tmp_path, reporter):
        pass


def test_the_lock_of_a_dead_process_of_this_host_is_taken_over_at_once(
    tmp_path, reporter, monkeypatch
):
    monkeypatch.setattr(lock, "STALE_SECONDS", 1e6)
    process = write_lock_of_dead_process(tmp_path)
    with workdir_lock(tmp_path, reporter):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["token"] != "other"
    assert f"process {process} on" in reporter.messages[0]


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        lock._process_id_scope() | {"pid_namespace": "pid:[1]"},
        lock._process_id_scope() | {"boot_id": "that of another machine"},
        {},
    ],
)
def test_a_live_run_elsewhere_with_the_same_host_name_is_not_taken_over(
    tmp_path, reporter, monkeypatch, same_process, other
):
    """Locks of earlier releases state neither the machine nor the namespace of the process id."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 20.0)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    process = os.getpid() if same_process else dead.pid
    owner = {"host": lock.socket.gethostname(), "process": process} | other
    write_lock(tmp_path, **owner)
    beat = threading.Timer(0.3, write_lock, (tmp_path,), owner | {"heartbeat": 4})
    beat.start()
    with (
        pytest.raises(DeepLabError, match=rf"is in use by process {process} on"),
        workdir_lock(tmp_path, reporter),
    ):
        pass
    beat.join()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["token"] == "other"


def test_a_lock_without_heartbeat_is_taken_over_later(tmp_path, reporter):
    write_lock(tmp_path)
    with workdir_lock(tmp_path, reporter):
        pass
    waiting, took_over = reporter.messages
    assert "process 1 on elsewhere" in waiting
    assert "took over" in took_over


def test_a_run_that_lost_its_lock_ends_with_an_error(tmp_path, reporter):
    with workdir_lock(tmp_path, reporter) as check:
        check()
        write_lock(tmp_path)
        lock.time.sleep(0.5)
        with pytest.raises(DeepLabError, match="in use by process 1 on elsewhere"):
            check()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["token"] == "other"


def test_a_run_whose_lock_was_deleted_ends_with_an_error(tmp_path, reporter):
    with workdir_lock(tmp_path, reporter) as check:
        (tmp_path / LOCK_FILE).unlink()
        lock.time.sleep(0.5)
        with pytest.raises(DeepLabError, match="was deleted while this run used it"):
            check()


def test_a_damaged_lock_is_taken_over(tmp_path, reporter):
    (tmp_path / LOCK_FILE).write_text("{")
    with workdir_lock(tmp_path, reporter):
        pass
    assert "an unknown host" in reporter.messages[0]


def test_an_unreadable_lock_shows_no_heartbeat(tmp_path, reporter):
    write_lock(tmp_path)
    content = (tmp_path / LOCK_FILE).read_text()

    def damage():
        for text in ("", content):
            lock.time.sleep(0.3)
            (tmp_path / LOCK_FILE).write_text(text)

    thread = threading.Thread(target=damage)
    thread.start()
    with workdir_lock(tmp_path, reporter):
        pass
    thread.join()
    assert "took over" in reporter.messages[-1]


def wait_until(condition):
    ends = lock.time.monotonic() + 20
    while not condition():
        assert lock.time.monotonic() < ends
        lock.time.sleep(0.02)


@pytest.mark.parametrize("error", ERRORS)
def test_the_heartbeat_continues_after_an_outage(tmp_path, reporter, monkeypatch, error):
    def heartbeat():
        return json.loads((tmp_path / LOCK_FILE).read_text())["heartbeat"]

    with workdir_lock(tmp_path, reporter) as check:
        with failing(monkeypatch, LOCK_FILE, "read_text", error) as count:
            wait_until(lambda: count() >= 2)
        before = heartbeat()
        wait_until(lambda: heartbeat() > before)
        check()
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("error", ERRORS)
def test_a_run_that_ends_during_an_outage_leaves_its_lock(tmp_path, reporter, monkeypatch, error):
    with (
        failing(monkeypatch, LOCK_FILE, "read_text", error) as count,
        workdir_lock(tmp_path, reporter),
    ):
        pass
    assert count() >= 1
    with workdir_lock(tmp_path, reporter):
        pass
    assert "took over" in reporter.messages[0]


@pytest.mark.parametrize("error", ERRORS)
def test_an_outage_does_not_hide_that_the_lock_was_lost(tmp_path, reporter, monkeypatch, error):
    with workdir_lock(tmp_path, reporter) as check:
        write_lock(tmp_path)
        wait_until(lambda: "workdir lock" not in [each.name for each in threading.enumerate()])
        with (
            failing(monkeypatch, LOCK_FILE, "read_text", error),
            pytest.raises(DeepLabError, match="in use by process 1 on elsewhere"),
        ):
            check()


CONTENDER = """
import pathlib, sys, time
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import lock

lock.HEARTBEAT_SECONDS = 0.5
workdir = pathlib.Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.read(1)
try:
    with lock.workdir_lock(workdir, Reporter()):
        print("owns", flush=True)
        sys.stdin.read(1)
except DeepLabError as error:
    print(error, flush=True)
"""


def test_one_of_several_processes_takes_over_the_lock_of_a_dead_process(tmp_path):
    write_lock_of_dead_process(tmp_path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    words = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    contenders = [subprocess.Popen(words, **pipes) for _ in range(3)]
    try:
        assert [one.stdout.readline() for one in contenders] == ["ready\n"] * 3
        for one in contenders:
            one.stdin.write("\n")
            one.stdin.flush()
        # The others wait for a heartbeat of the owner, which holds the lock until it is killed.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda one: one.stdout.readline(), contenders))
        assert answers.count("owns\n") == 1
        assert sum("in use by" in one or "started at" in one for one in answers) == 2
    finally:
        for one in contenders:
            one.kill()
            one.communicate()


def test_a_lock_that_another_process_is_taking_over_is_refused(tmp_path, reporter):
    write_lock_of_dead_process(tmp_path)
    with (tmp_path / LOCK_FILE).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(DeepLabError, match="started at the same time is taking over"),
            workdir_lock(tmp_path, reporter),
        ):
            pass


def test_without_file_locks_the_lock_of_a_dead_process_is_taken_over(
    tmp_path, reporter, monkeypatch
):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    write_lock_of_dead_process(tmp_path)
    with workdir_lock(tmp_path, reporter):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["token"] != "other"
    assert len(reporter.messages) == 1
