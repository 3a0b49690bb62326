"""Lock of a workdir, so that two runs never write into it at the same time."""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import is_local, write_text
from deeplab_jax.reporter import Reporter

LOCK_FILE = "lock.json"
# Seconds between two heartbeats of the owner, and seconds without a heartbeat after which another
# process takes over the lock.
HEARTBEAT_SECONDS, STALE_SECONDS = 10.0, 45.0
# In buckets, a file can be neither created exclusively nor locked. A process therefore writes the
# lock and owns it if the lock still contains its token after this number of seconds.
SETTLE_SECONDS = 1.0
# Tokens of the locks that this process owns.
_HELD: set[str] = set()


@contextlib.contextmanager
def workdir_lock(workdir: pathlib.Path, reporter: Reporter) -> Iterator[Callable[[], None]]:
    """Locks a workdir, local or in a bucket, while the `with` block runs.

    The lock of a process that has ended is taken over. If that process ran on this host, in the
    same container, and the host has not been restarted since, this happens at once. Otherwise, it
    happens when the heartbeat in the lock has not changed for 45 s. Clocks of different hosts are
    not compared.

    Args:
      workdir: directory of the run.
      reporter: receives a message before waiting for, or taking over, the lock of another process.

    Yields:
      A function that raises a DeepLabError if this process has lost the lock. This happens if the
      lock is deleted, or if another run takes it over while this process is suspended.

    Raises:
      DeepLabError: another run trains in the workdir.
    """
    path, token = workdir / LOCK_FILE, uuid.uuid4().hex
    workdir.mkdir(parents=True, exist_ok=True)
    _acquire(path, token, reporter)
    _HELD.add(token)
    done = threading.Event()
    # The error message, as soon as another run has taken over the lock.
    lost: list[str] = []

    def beat() -> None:
        count = 0
        while not done.wait(HEARTBEAT_SECONDS):
            count += 1
            # If a bucket cannot be reached for some time, the run continues. Not all errors of its
            # library are OSErrors, for example HttpError of gcsfs.
            with contextlib.suppress(Exception):
                owner = _read(path)
                if owner == {}:
                    continue
                if owner is None or owner.get("token") != token:
                    lost.append(_taken(path, owner))
                    return
                write_text(path, _content(token, count))

    thread = threading.Thread(target=beat, name="workdir lock", daemon=True)
    thread.start()

    def check() -> None:
        if lost:
            raise DeepLabError(lost[0])

    try:
        yield check
    finally:
        done.set()
        thread.join()
        _HELD.discard(token)
        # Without the bucket, the lock stays, and the next run takes it over.
        with contextlib.suppress(Exception):
            if (_read(path) or {}).get("token") == token:
                path.unlink()


def _acquire(path: pathlib.Path, token: str, reporter: Reporter) -> None:
    while not _create(path, token):
        owner = _read(path)
        if owner is None:
            continue
        if not _died_here(owner):
            owner = _wait_until_stale(path, owner, reporter)
        if _take_over(path, owner, token):
            reporter.message(f"{path}: took over from {_described(owner)}, which no longer runs")
            return


def _take_over(path: pathlib.Path, owner: dict[str, Any], token: str) -> bool:
    """Replaces the lock of a process that has ended.

    On a local file system, a file lock decides between processes that try this at the same time.

    Args:
      path: the lock.
      owner: its content when it was last read; {} if it could not be parsed.
      token: token of this process.

    Returns:
      True if this process owns the lock; False if another process has changed it.

    Raises:
      DeepLabError: another process is taking over the lock.
    """
    try:
        if is_local(path):
            import fcntl

            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                replaced = not os.path.samestat(os.fstat(file.fileno()), path.stat())
                if replaced or _read(path) not in ({}, owner):
                    return False
                write_text(path, _content(token, 0))
                return True
    except FileNotFoundError:
        return False
    except BlockingIOError:
        raise DeepLabError(
            f"{path.parent}: another run that started at the same time is taking over {path}; "
            f"give another --workdir"
        ) from None
    # Some operating systems and network file systems have no such file locks.
    except (ImportError, OSError):
        pass
    write_text(path, _content(token, 0))
    time.sleep(SETTLE_SECONDS)
    return (_read(path) or {}).get("token") == token


def _create(path: pathlib.Path, token: str) -> bool:
    """Creates the lock if it does not exist, and returns whether this process owns it."""
    if is_local(path):
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(_content(token, 0))
            return True
        return False
    if path.exists():
        return False
    path.write_text(_content(token, 0))
    time.sleep(SETTLE_SECONDS)
    return (_read(path) or {}).get("token") == token


def _wait_until_stale(
    path: pathlib.Path, owner: dict[str, Any], reporter: Reporter
) -> dict[str, Any]:
    """Waits until the owner's heartbeat has not changed for 45 s, or until the lock is deleted.

    Returns:
      The last content of the lock that could be parsed; {} if there was none.

    Raises:
      DeepLabError: the heartbeat changed, so the owner is alive, or another process took over the
        lock.
    """
    described = _described(owner)
    reporter.message(f"{path}: waiting {STALE_SECONDS:.0f} s for a heartbeat of {described}")
    ends = time.monotonic() + STALE_SECONDS
    while time.monotonic() < ends:
        time.sleep(min(1.0, STALE_SECONDS / 10))
        now = _read(path)
        if now is None:
            break
        if not owner:
            owner = now
        # An unreadable lock shows no heartbeat.
        elif now and now != owner:
            raise DeepLabError(_taken(path, now))
    return owner


def _died_here(owner: dict[str, Any]) -> bool:
    """Returns whether the owner ran on this host, in this container, and its process has ended.

    The result is also False if the host was restarted since.
    """
    process = owner.get("process")
    if owner.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    # Machines and containers can have equal host names, but their process ids are unrelated. Locks
    # of earlier releases do not state where their process id is valid.
    if any(owner.get(name) != value for name, value in _process_id_scope().items()):
        return False
    if process == os.getpid():
        # The process id of the owner was reused, unless this process itself holds the lock.
        return owner.get("token") not in _HELD
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the content of the lock file; None if there is none, {} if it cannot be parsed.

    The content cannot be parsed while the file is being written, or if a bucket sends an invalid
    response, for which gcsfs raises a ValueError.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _process_id_scope() -> dict[str, str | None]:
    """Returns identifiers of where the id of this process is valid; each is None except on Linux.

    They are `boot_id`, which identifies the machine and its last start, and `pid_namespace`, which
    identifies the container on this machine.
    """
    scope: dict[str, str | None] = {"boot_id": None, "pid_namespace": None}
    with contextlib.suppress(OSError):
        scope["boot_id"] = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        scope["pid_namespace"] = os.readlink("/proc/self/ns/pid")
    return scope


def _content(token: str, heartbeat: int) -> str:
    owner = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        **_process_id_scope(),
        "token": token,
        "heartbeat": heartbeat,
    }
    return json.dumps(owner) + "\n"


def _described(owner: dict[str, Any] | None) -> str:
    owner = owner or {}
    return f"process {owner.get('process', '?')} on {owner.get('host', 'an unknown host')}"


def _taken(path: pathlib.Path, owner: dict[str, Any] | None) -> str:
    if owner is None:
        return f"{path} was deleted while this run used it; run the same command again to resume"
    return (
        f"{path.parent} is in use by {_described(owner)}; wait for it, stop it, or give another "
        f"--workdir (if that process does not train, delete {path})"
    )
