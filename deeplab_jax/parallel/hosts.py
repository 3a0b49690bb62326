"""Connects the processes of a multi-host job (usually one per host), and synchronizes them."""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel.private_jax import backends_are_initialized, coordination_client

# Maximum times in seconds: until all processes are started, between two heartbeats of a process,
# and until all processes reach the end of the job.
START_SECONDS, HEARTBEAT_SECONDS, SHUTDOWN_SECONDS = 120, 100, 20
# Timeout of barriers in seconds. Failures of other processes are detected much earlier.
WAIT_SECONDS = 24 * 3600
_BARRIERS = itertools.count()
# JAX waits this number of seconds longer for the start than this module, so that the message of
# this module is printed.
GRACE_SECONDS = 10
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


# Function that receives a message and ends the process.
End = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Address and size of a multi-host job, and index of this process.

    If the attributes are None, JAX detects these values from the cluster.

    Attributes:
      coordinator_address: host:port of process 0. The port must be free and reachable from all
        hosts.
      num_processes: number of processes in the job.
      process_id: index of this process, 0 to num_processes − 1.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def __post_init__(self) -> None:
        address, processes, index = self.coordinator_address, self.num_processes, self.process_id
        given = (address, processes, index)
        if any(value is not None for value in given) and None in given:
            raise DeepLabError(
                "--coordinator, --num_processes and --process_id must be given together (or the "
                f"environment variables {', '.join(VARIABLES)}); got {', '.join(map(str, given))}"
            )
        if address is None or processes is None or index is None:
            return
        if not re.fullmatch(r".+:\d+", address):
            raise DeepLabError(f"--coordinator={address} must be host:port, as in 10.0.0.1:1234")
        if processes < 1:
            raise DeepLabError(f"--num_processes={processes} must be at least 1")
        if not 0 <= index < processes:
            raise DeepLabError(
                f"--process_id={index} must be in 0..{processes - 1} for "
                f"--num_processes={processes}"
            )

    def or_of(self, environment: Mapping[str, str]) -> "Addresses":
        """Returns these addresses if they are set, else the addresses in environment variables.

        Args:
          environment: environment variables. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
            JAX_PROCESS_ID are read.

        Raises:
          DeepLabError: a variable is invalid, only one of JAX_NUM_PROCESSES and JAX_PROCESS_ID is
            set, or both are set without JAX_COORDINATOR_ADDRESS.
        """
        if self.coordinator_address is not None:
            return self
        coordinator, *numbers = (environment.get(name) for name in VARIABLES)
        for name, text in zip(VARIABLES[1:], numbers, strict=True):
            if text is not None and not text.isdecimal():
                raise DeepLabError(f"{name}={text!r} must be a whole number")
        if numbers == [None, None]:
            # Some clusters set only the address.
            return self
        return Addresses(coordinator, *(None if text is None else int(text) for text in numbers))


def start_hosts(
    addresses: Addresses | None = None,
    *,
    start_seconds: int = START_SECONDS,
    end: End | None = None,
) -> int:
    """Connects the processes of a multi-host job; must be called before JAX is first used.

    JAX detects TPU pods, SLURM, GKE and Open MPI. On other clusters, addresses must be given;
    without them, the job has a single process.

    Args:
      addresses: addresses of the job (default: from environment variables or the cluster).
      start_seconds: maximum time to wait for all processes, in seconds.
      end: function that is called with a message if not all processes start within
        `start_seconds`. It must end this process. It cannot do so by raising an exception, because
        JAX waits outside Python. By default, JAX aborts the process after `start_seconds` + 10 s.

    Returns:
      The number of processes of the job.

    Raises:
      DeepLabError: the addresses are invalid, JAX cannot detect or connect the processes, or JAX
        found no other process although the environment variables indicate several processes.
    """
    addresses = (addresses or Addresses()).or_of(os.environ)
    if addresses.coordinator_address is None:
        if alone(os.environ):
            return 1
        # In a notebook or a test, JAX may already be in use. The process then cannot join a job.
        if backends_are_initialized():
            return jax.process_count()
    # A handler that was not installed from Python is reported as None, and cannot be restored.
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    with _deadline(start_seconds, lambda: end and end(_late(addresses, start_seconds))):
        if not _initialize(addresses, start_seconds + GRACE_SECONDS):
            _refuse_to_be_alone(os.environ)
            return 1
        # This call connects the devices, which can fail after the processes are connected.
        count = jax.process_count()
    # JAX installs a handler for SIGTERM that does not end the process.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, before)
    return count


def _initialize(addresses: Addresses, seconds: int) -> bool:
    """Initializes JAX's distributed runtime; returns False if this process is the only one."""
    try:
        jax.distributed.initialize(
            **dataclasses.asdict(addresses),
            local_device_ids=local_devices(os.environ),
            # Given addresses take precedence over those of a cluster.
            cluster_detection_method="deactivate" if addresses.coordinator_address else None,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        # JAX found no cluster.
        if "must be defined" in str(error) or "should be defined" in str(error):
            return False
        raise DeepLabError(f"cannot detect the processes of the job: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise DeepLabError(f"cannot connect the processes of the job: {reason}") from error
    return True


@contextlib.contextmanager
def _deadline(seconds: float, late: Callable[[], None]) -> Iterator[None]:
    """Calls `late` in another thread if the `with` block takes longer than `seconds`."""
    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _late(addresses: Addresses, seconds: float) -> str:
    """Returns the error message for a job of which some processes did not start in time."""
    address = addresses.coordinator_address
    if address is None:
        return f"not all processes of the job started within {seconds:.0f} s"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        missing = f"process 0 answers at {address}, but not all other processes started; start them"
    except OSError as error:
        missing = f"process 0 does not answer at {address} ({error}); start it, or open its port"
    return (
        f"process {addresses.process_id} of {addresses.num_processes} waited {seconds:.0f} s: "
        f"{missing}"
    )


def alone(environment: Mapping[str, str]) -> bool:
    """Returns whether SLURM runs a single process.

    For such a process, `start_hosts` calls `jax.distributed.initialize` only if addresses are set.
    Without addresses, JAX would detect SLURM and could restrict the process to one GPU.
    """
    return environment.get("SLURM_NTASKS") == "1"


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """Returns the indices of all GPUs of the node if SLURM runs one process per node, else None.

    With None, JAX selects the GPUs. If it detects SLURM, it selects one GPU for each process.
    """
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    single = re.fullmatch(r"1(\(x\d+\))?", tasks)
    return list(range(int(gpus))) if single and gpus.isdecimal() else None


def members(environment: Mapping[str, str]) -> str | None:
    """Returns NAME=value of an environment variable that indicates a job of several processes.

    If there is no such variable, the result is None.
    """
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES"):
        if environment.get(name, "").isdecimal() and int(environment[name]) > 1:
            return f"{name}={environment[name]}"
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return f"TPU_WORKER_HOSTNAMES={environment['TPU_WORKER_HOSTNAMES']}"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return f"JOB_COMPLETION_INDEX={environment['JOB_COMPLETION_INDEX']}"
    return None


def _refuse_to_be_alone(environment: Mapping[str, str]) -> None:
    """Raises an error if an environment variable indicates a job of several processes.

    `start_hosts` calls this function if JAX found no other process.
    """
    found = members(environment)
    if found is None:
        return
    package = (
        "run pip install 'deeplab_jax[kubernetes]', which JAX needs to find the others, or "
        if found.startswith("JOB_") and importlib.util.find_spec("kubernetes") is None
        else ""
    )
    raise DeepLabError(
        f"{found} indicates a job of several processes, but this process found no others; {package}"
        "give --coordinator, --num_processes and --process_id (to run only this process: "
        "--coordinator=localhost:1234 --num_processes=1 --process_id=0)"
    )


def is_first_host() -> bool:
    """Returns whether this is process 0, which writes all shared files."""
    return jax.process_index() == 0


def from_first_host(value: Any) -> Any:
    """Broadcasts the numbers or arrays of process 0 to all processes, and returns them.

    All processes must call this function.

    Args:
      value: tree of numbers or arrays, with the same shapes in all processes.
    """
    if jax.process_count() == 1:
        return value
    wait_for_hosts("value")
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(value))


def wait_for_hosts(name: str) -> None:
    """Waits until all processes have called this function (barrier).

    Processes may wait for hours, because the barrier uses no collective operation of the devices.
    On CPUs, such an operation fails if the processes do not start it within 30 s of each other.

    Args:
      name: name of the barrier; several barriers may have the same name.
    """
    if jax.process_count() > 1:
        # The number makes the name unique for each call.
        barrier = f"deeplab_jax/{name}/{next(_BARRIERS)}"
        coordination_client().wait_at_barrier(barrier, WAIT_SECONDS * 1000)


@contextlib.contextmanager
def first_host_first(name: str) -> Iterator[None]:
    """Context in which process 0 runs the `with` block first, then all other processes run it.

    The other processes can therefore read files that process 0 writes in the block.

    Args:
      name: name of the barrier at which the other processes wait.
    """
    if not is_first_host():
        wait_for_hosts(name)
    yield
    if is_first_host():
        wait_for_hosts(name)


def check_hosts_agree(facts: Mapping[str, Any]) -> None:
    """Checks that the given values are equal in all processes of the job.

    Args:
      facts: JSON-ready values by name, such as config fields, datasets and versions.

    Raises:
      DeepLabError: a value differs from the value in process 0. The message contains both values.
    """
    if jax.process_count() == 1:
        return
    key = f"deeplab_jax/facts/{next(_BARRIERS)}"
    own = json.loads(json.dumps(dict(facts)))
    client = coordination_client()
    if is_first_host():
        client.key_value_set(key, json.dumps(own))
    first = json.loads(client.blocking_key_value_get(key, WAIT_SECONDS * 1000))
    differences = [
        f"{name} is {own.get(name, 'missing')} instead of {first.get(name, 'missing')}"
        for name in sorted(own.keys() | first.keys())
        if own.get(name) != first.get(name)
    ]
    if differences:
        raise DeepLabError(
            f"process {jax.process_index()} on {socket.gethostname()} differs from process 0: "
            f"{'; '.join(differences)}. Start all processes with the same command, data and "
            "versions"
        )


def latest_of_hosts(name: str, value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Publishes values of this process, and returns the latest values that each process published.

    The function does not wait for other processes, and does not use the devices. The values of each
    process are those of its last call. A process that has not called this function with this name
    yet is missing from the result.

    Args:
      name: name under which all processes publish the values.
      value: JSON-ready values of this process.

    Returns:
      The latest values of each process, one dictionary per process.
    """
    if jax.process_count() == 1:
        return [dict(value)]
    folder, client = f"deeplab_jax/latest/{name}", coordination_client()
    client.key_value_set(f"{folder}/{jax.process_index()}", json.dumps(dict(value)), True)
    return [json.loads(text) for _, text in client.key_value_dir_get(folder)]
