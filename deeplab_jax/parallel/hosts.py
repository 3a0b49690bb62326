"""The processes of a job, one a host as a rule: how they find each other, and who writes."""

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

# Seconds. A host that never comes up, one that stops answering, and one that others wait for at the
# end; each is over well within 150 s.
START_SECONDS, HEARTBEAT_SECONDS, SHUTDOWN_SECONDS = 120, 100, 20
# For the others: a failure of theirs ends the waiting long before.
WAIT_SECONDS = 24 * 3600
_BARRIERS = itertools.count()
# Margin in seconds by which JAX would abort the process later than this code ends it.
GRACE_SECONDS = 10
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


# Takes a message and ends the process.
End = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where a process stands in its job; None: detected from the cluster.

    Attributes:
      coordinator_address: host:port of process 0, which must be free there and open to the others.
      num_processes: of the job.
      process_id: of this process, 0 to num_processes − 1.
    """

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def __post_init__(self) -> None:
        address, processes, index = self.coordinator_address, self.num_processes, self.process_id
        given = (address, processes, index)
        if any(value is not None for value in given) and None in given:
            raise DeepLabError(
                "--coordinator, --num_processes and --process_id go together (or the variables "
                f"{', '.join(VARIABLES)}); got {', '.join(map(str, given))}"
            )
        if address is None or processes is None or index is None:
            return
        if not re.fullmatch(r".+:\d+", address):
            raise DeepLabError(f"--coordinator={address} must be host:port, as in 10.0.0.1:1234")
        if processes < 1 or not 0 <= index < processes:
            raise DeepLabError(
                f"--process_id={index} must be 0 to {processes - 1}, of --num_processes={processes}"
            )

    def or_of(self, environment: Mapping[str, str]) -> "Addresses":
        """Returns these, or those of the environment where none are given.

        Raises:
          DeepLabError: a number is none, or some of the three are missing.
        """
        if self.coordinator_address is not None:
            return self
        coordinator, *numbers = (environment.get(name) for name in VARIABLES)
        for name, text in zip(VARIABLES[1:], numbers, strict=True):
            if text is not None and not text.isdecimal():
                raise DeepLabError(f"{name}={text!r} must be a whole number")
        if numbers == [None, None]:
            # A cluster may report only the address.
            return self
        return Addresses(coordinator, *(None if text is None else int(text) for text in numbers))


def start_hosts(
    addresses: Addresses | None = None,
    *,
    start_seconds: int = START_SECONDS,
    end: End | None = None,
) -> int:
    """Joins the processes of the job; to be called before JAX is first used.

    TPU pods, SLURM, GKE and Open MPI are found by JAX itself; elsewhere addresses must be given, or
    this process is alone.

    Args:
      addresses: of the processes; by default what the environment says.
      start_seconds: to wait for all of them.
      end: is called with a message where they do not all come up in time, and must end the process:
        nothing else can, as JAX waits for them outside Python. By default JAX aborts it a little
        later.

    Returns:
      The number of processes of the job.

    Raises:
      DeepLabError: the addresses are not legal, the cluster's cannot be found, or the environment
        reports other processes and none was found.
    """
    addresses = (addresses or Addresses()).or_of(os.environ)
    if addresses.coordinator_address is None:
        if alone(os.environ):
            return 1
        # From a notebook or a test: what this process is has been decided.
        if backends_are_initialized():
            return jax.process_count()
    before = signal.getsignal(signal.SIGTERM)
    with _deadline(start_seconds, lambda: end and end(_late(addresses, start_seconds))):
        if not _initialize(addresses, start_seconds + GRACE_SECONDS):
            _refuse_to_be_alone(os.environ)
            return 1
        # Where processes find each other, their devices can still fail to.
        count = jax.process_count()
    # JAX listens for SIGTERM in a way that lets a process live on that nobody asks any more.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, before)
    return count


def _initialize(addresses: Addresses, seconds: int) -> bool:
    """Starts JAX's runtime of several processes; returns whether there are any others."""
    try:
        jax.distributed.initialize(
            **dataclasses.asdict(addresses),
            local_device_ids=local_devices(os.environ),
            # Addresses that are given need no cluster beside them.
            cluster_detection_method="deactivate" if addresses.coordinator_address else None,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        # JAX found no cluster.
        if "must be defined" in str(error) or "should be defined" in str(error):
            return False
        raise DeepLabError(f"the processes of the job cannot be found: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise DeepLabError(f"the processes of the job cannot meet: {reason}") from error
    return True


@contextlib.contextmanager
def _deadline(seconds: float, late: Callable[[], None]) -> Iterator[None]:
    """Calls a function, in a thread, where the block takes longer."""
    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _late(addresses: Addresses, seconds: float) -> str:
    """Returns what to say where not all processes came up."""
    address = addresses.coordinator_address
    if address is None:
        return f"not all processes of the job came up within {seconds:.0f} s"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        missing = f"process 0 answers at {address}, but not all of the others came up; start them"
    except OSError as error:
        missing = f"process 0 does not answer at {address} ({error}); start it, or open its port"
    return (
        f"process {addresses.process_id} of {addresses.num_processes} waited {seconds:.0f} s: "
        f"{missing}"
    )


def alone(environment: Mapping[str, str]) -> bool:
    """Returns whether SLURM reports one process, which JAX would give one GPU of its node."""
    return environment.get("SLURM_NTASKS") == "1"


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """Returns the GPUs of a process that SLURM started as the only one on its node, else None.

    JAX would take it for one of several processes of a node, with one GPU each.
    """
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    single = re.fullmatch(r"1(\(x\d+\))?", tasks)
    return list(range(int(gpus))) if single and gpus.isdecimal() else None


def members(environment: Mapping[str, str]) -> str | None:
    """Returns the variable by which the environment reports a job of several processes, or None.

    Without a batch index of Kubernetes and the like, a process cannot know that it has peers.
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
    """Checks that a process that joined no others is not one of several.

    Raises:
      DeepLabError: the environment reports a job of several processes.
    """
    found = members(environment)
    if found is None:
        return
    package = (
        "pip install 'deeplab_jax[kubernetes]', by which JAX finds the others, or "
        if found.startswith("JOB_") and importlib.util.find_spec("kubernetes") is None
        else ""
    )
    raise DeepLabError(
        f"{found} reports a job of several processes, but this process found no others; {package}"
        "give --coordinator, --num_processes and --process_id (for a process of its own: "
        "--coordinator=localhost:1234 --num_processes=1 --process_id=0)"
    )


def is_first_host() -> bool:
    """Returns whether this process writes the shared files: reports, numbers, pictures."""
    return jax.process_index() == 0


def from_first_host(value: Any) -> Any:
    """Returns process 0's numbers or arrays (of the same shapes on all), on every process."""
    if jax.process_count() == 1:
        return value
    wait_for_hosts("value")
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(value))


def wait_for_hosts(name: str) -> None:
    """Returns once every process has come to the same place, after whatever time.

    Nothing runs on the devices. On CPUs that matters: processes that first meet in a collective
    must do so within 30 s.
    """
    if jax.process_count() > 1:
        # The same name may come again.
        barrier = f"deeplab_jax/{name}/{next(_BARRIERS)}"
        coordination_client().wait_at_barrier(barrier, WAIT_SECONDS * 1000)


@contextlib.contextmanager
def first_host_first(name: str) -> Iterator[None]:
    """Lets process 0 go through a block before all others, as where it makes what they read."""
    if not is_first_host():
        wait_for_hosts(name)
    yield
    if is_first_host():
        wait_for_hosts(name)


def check_hosts_agree(facts: Mapping[str, Any]) -> None:
    """Checks that all processes of the job have the same facts, before they train together.

    Args:
      facts: JSON-ready values by name, such as config fields, datasets and versions.

    Raises:
      DeepLabError: this process differs from process 0; names what differs.
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
        f"{name} is {own.get(name, 'missing')} and not {first.get(name, 'missing')}"
        for name in sorted(own.keys() | first.keys())
        if own.get(name) != first.get(name)
    ]
    if differences:
        raise DeepLabError(
            f"process {jax.process_index()} on {socket.gethostname()} differs from process 0: "
            f"{'; '.join(differences)}; start all processes with the same command, data and "
            "versions"
        )
