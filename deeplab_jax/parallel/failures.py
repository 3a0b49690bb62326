"""Failures and requests to stop that all processes of a job must act on."""

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

# Number of steps by which the result lags, so that a call never waits for the devices.
LAG = 2


class PreemptionSync:
    """Returns, equally on all processes, whether any process received a stop request."""

    def __init__(self, mesh: Mesh) -> None:
        """Prepares the reduction over the processes of a mesh."""
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._own_devices = len(mesh.local_devices)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._waiting: collections.deque[jax.Array] = collections.deque()

    def __call__(self, asked: bool) -> bool:
        """Returns whether to stop; to be called by all processes after every step.

        A process that is alone receives it immediately, several `LAG` steps later.

        Args:
          asked: whether this process was asked to stop.
        """
        if jax.process_count() == 1:
            return asked
        flags = np.full(self._own_devices, asked)
        here = jax.make_array_from_process_local_data(self._sharding, flags)
        self._waiting.append(self._any(here))
        return len(self._waiting) > LAG and bool(self._waiting.popleft())


KEY = "deeplab_jax/failures"
# Seconds between two polls for failures of other processes.
POLL_SECONDS = 1.0
# Seconds that a broken connection waits for the message of the process that broke it.
MESSAGE_SECONDS = 8.0
# Maximum seconds between the first and the last of processes interrupted together.
TOGETHER_SECONDS = 10
# Start of the watchdog's message, at which every process prints its stacks.
STALLED = "no progress"
# Words in JAX's messages that point to the connection and not to this process.
CONNECTION_WORDS = ("gloo", "connection", "unavailable", "coordination", "heartbeat", "peer")


@contextlib.contextmanager
def joined_hosts(
    addresses: Addresses | None = None,
    *,
    start_seconds: int = START_SECONDS,
    end: End,
) -> Iterator[int]:
    """Joins the processes of the job for the time of the block; see `start_hosts`.

    If the block fails in one process, `end` is called with its message in all others.

    Args:
      addresses: as of `start_hosts`.
      start_seconds: as of `start_hosts`.
      end: function that receives a message and must end the process, from any thread, because the
        main thread may wait for a host that no longer responds.

    Yields:
      The number of processes.

    Raises:
      DeepLabError: as in `start_hosts`, or the connection to another process was lost.
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
    """Polls, in a thread, for failures of other processes."""
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
    """Returns the message of another process that failed, or None."""
    try:
        rows = coordination_client().key_value_dir_get(KEY)
    except RuntimeError:
        # Without the coordinator JAX ends this process, with its own message.
        return None
    for key, message in rows:
        process = key.rpartition("/")[2]
        if process != str(jax.process_index()):
            return f"process {process} of the job failed: {message}"
    return None


def _announced(error: BaseException) -> BaseException:
    """Reports an error to the other processes unless already sent; returns the error to raise."""
    if isinstance(error, KeyboardInterrupt) and _all_are_interrupted():
        jax.distributed.shutdown()
        return error
    if isinstance(error, jax.errors.JaxRuntimeError) and _is_connection(error):
        # The process that broke it may announce why; then the watch ends this process.
        time.sleep(MESSAGE_SECONDS)
        reason = " ".join(str(error).split())[:200]
        return DeepLabError(
            f"the connection to another process of the job was lost ({reason}); its host died or "
            "was taken away; start the same command again on all hosts to go on from the last "
            "checkpoint"
        )
    announce(" ".join(str(error).split()) or type(error).__name__)
    return error


def _all_are_interrupted() -> bool:
    """Returns whether the other processes stop as well, as they do where training was asked to."""
    try:
        coordination_client().wait_at_barrier(f"{KEY}/interrupted", TOGETHER_SECONDS * 1000)
    except RuntimeError:
        return False
    return True


def _is_connection(error: BaseException) -> bool:
    return any(word in str(error).lower() for word in CONNECTION_WORDS)


def announce(message: str) -> None:
    """Reports to the other processes that this one has failed."""
    client = coordination_client()
    with contextlib.suppress(RuntimeError):
        client.key_value_set(f"{KEY}/{jax.process_index()}", message)
    _let_others_read()


def _let_others_read() -> None:
    """Waits in process 0, which holds the store; JAX aborts the others once it ends."""
    if jax.process_index() == 0:
        time.sleep(3 * POLL_SECONDS)


def print_stacks() -> None:
    """Prints the stacks of all threads to standard error."""
    sys.stderr.flush()
    print(f"stacks of all threads of process {jax.process_index()}:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
