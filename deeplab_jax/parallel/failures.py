"""Passes failures and stop signals of one process to all processes of a multi-host job."""

import collections
import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel.hosts import START_SECONDS, Addresses, End, start_hosts, wait_for_hosts
from deeplab_jax.parallel.mesh import replicated
from deeplab_jax.parallel.private_jax import coordination_client

# Number of steps by which PreemptionSync delays its result, so that no call waits for the devices.
LAG = 2


class PreemptionSync:
    """Lets all processes stop after the same step if any process receives a stop signal."""

    def __init__(self, mesh: Mesh) -> None:
        """Prepares the reduction over all devices, which combines the signals of all processes.

        Args:
          mesh: mesh of all devices of the job.
        """
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._own_devices = len(mesh.local_devices)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._waiting: collections.deque[jax.Array] = collections.deque()

    def __call__(self, asked: bool) -> bool:
        """Returns whether to stop; all processes must call this after every step.

        With several processes, each call starts a reduction on the devices, and returns the result
        of the reduction that was started two calls earlier. No call therefore waits for the
        devices, and the result is True two steps after the signal.

        Args:
          asked: True if this process received a stop signal.
        """
        if jax.process_count() == 1:
            return asked
        flags = np.full(self._own_devices, asked)
        here = jax.make_array_from_process_local_data(self._sharding, flags)
        self._waiting.append(self._any(here))
        return len(self._waiting) > LAG and bool(self._waiting.popleft())


class JobInterrupt(KeyboardInterrupt):
    """Interruption that all processes of a job raise after they agreed to stop.

    `joined_hosts` then waits until all processes have cleaned up.
    """


KEY = "deeplab_jax/failures"
# Seconds between two polls for failures of other processes.
POLL_SECONDS = 1.0
# Seconds to wait after a connection error for the message of the process that failed.
MESSAGE_SECONDS = 8.0
# Maximum time in seconds between the interruptions of the processes of a preempted job, and between
# the ends of processes that agreed to stop. Process 0 ends later than the others: it closes the
# writers of metrics, each of which can take a minute.
TOGETHER_SECONDS, CLEAN_UP_SECONDS = 10, 600
# Beginning of the watchdog's message. All processes that receive this message print their stacks.
STALLED = "no progress"
# Words in the messages of JAX that indicate a connection error, not an error in this process.
CONNECTION_WORDS = ("gloo", "connection", "unavailable", "coordination", "heartbeat", "peer")


@contextlib.contextmanager
def joined_hosts(
    addresses: Addresses | None = None,
    *,
    start_seconds: int = START_SECONDS,
    end: End,
) -> Iterator[int]:
    """Connects the processes of a job while the `with` block runs; see `start_hosts`.

    If the block raises an error in one process, `end` is called with the error message in all other
    processes. If it raises a KeyboardInterrupt in all processes at about the same time, `end` is
    not called. A JobInterrupt must be raised in all processes.

    Args:
      addresses: addresses of the job (default: from environment variables or the cluster).
      start_seconds: maximum time to wait for all processes, in seconds.
      end: function that receives a message and must end the process. It is called in another
        thread, because the main thread may be waiting for a host that no longer responds.

    Yields:
      The number of processes.

    Raises:
      DeepLabError: the addresses are invalid, the job cannot be detected or is incomplete, or the
        connection to another process was lost.
    """
    count = start_hosts(addresses, start_seconds=start_seconds, end=end)
    if count == 1:
        yield count
        return
    with _watching(end):
        try:
            yield count
            wait_for_hosts("the end")
        except BaseException as error:
            raise _announced(error) from error
    jax.distributed.shutdown()


@contextlib.contextmanager
def _watching(end: End) -> Iterator[None]:
    """Calls `end` in another thread if another process reports an error during the `with` block."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            message = failure_of_others()
            if message is not None and not done.is_set():
                if STALLED in message:
                    print_stacks()
                _let_others_read()
                end(message)

    thread = threading.Thread(target=watch, name="failures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def failure_of_others() -> str | None:
    """Returns the error message of another process that failed; None if no other one failed."""
    try:
        rows = coordination_client().key_value_dir_get(KEY)
    except RuntimeError:
        # If the coordinator is gone, JAX ends this process with its own message.
        return None
    for key, message in rows:
        process = key.rpartition("/")[2]
        if process != str(jax.process_index()):
            return f"process {process} of the job failed: {message}"
    return None


def _announced(error: BaseException) -> BaseException:
    """Reports an error to the other processes.

    The error is not reported if a connection was lost or all processes were interrupted.

    Returns:
      The error to raise: `error` itself, or a DeepLabError if a connection was lost.
    """
    if isinstance(error, KeyboardInterrupt) and _all_are_interrupted(error):
        jax.distributed.shutdown()
        return error
    if isinstance(error, jax.errors.JaxRuntimeError) and _is_connection(error):
        # If the process that failed reports an error, the polling thread ends this process.
        time.sleep(MESSAGE_SECONDS)
        reason = " ".join(str(error).split())[:200]
        return DeepLabError(
            f"the connection to another process of the job was lost ({reason}); its host failed or "
            "was preempted. Start the same command again on all hosts to resume from the last "
            "checkpoint"
        )
    announce(" ".join(str(error).split()) or type(error).__name__)
    return error


def _all_are_interrupted(error: KeyboardInterrupt) -> bool:
    """Waits for the interruption of all processes, for example by preemption.

    Returns:
      True if all processes were interrupted; False if this takes more than 600 s for a
      JobInterrupt, or 10 s for another KeyboardInterrupt, or if a connection was lost.
    """
    seconds = CLEAN_UP_SECONDS if isinstance(error, JobInterrupt) else TOGETHER_SECONDS
    try:
        coordination_client().wait_at_barrier(f"{KEY}/interrupted", seconds * 1000)
    except RuntimeError:
        return False
    return True


def _is_connection(error: BaseException) -> bool:
    return any(word in str(error).lower() for word in CONNECTION_WORDS)


def announce(message: str) -> None:
    """Reports an error of this process to all other processes."""
    client = coordination_client()
    with contextlib.suppress(RuntimeError):
        client.key_value_set(f"{KEY}/{jax.process_index()}", message)
    _let_others_read()


def _let_others_read() -> None:
    """Waits until the other processes have had time to read a published error message.

    Only process 0 waits, because it runs the key-value store that contains the message, and JAX
    aborts the other processes when process 0 ends.
    """
    if jax.process_index() == 0:
        time.sleep(3 * POLL_SECONDS)


def print_stacks() -> None:
    """Prints the stacks of all threads to standard error."""
    sys.stderr.flush()
    print(f"stacks of all threads of process {jax.process_index()}:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
