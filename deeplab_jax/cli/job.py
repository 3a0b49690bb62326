"""Support for commands whose process is part of a multi-process job: flags, reporter and exit."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.reporter import Reporter

# Exit status of a process if another process of the job failed.
FAILED_ELSEWHERE = 3


def define_hosts(flags: Flags) -> None:
    """Defines --coordinator, --num_processes, --process_id and --start_timeout."""
    flags.define(
        "coordinator",
        None,
        "Address of process 0 of a job of several processes, as host:port (default: detected on "
        "TPU pods, SLURM and GKE).",
    )
    flags.define("num_processes", int, "Number of processes of the job; requires --coordinator.")
    flags.define(
        "process_id", int, "Index of this process in the job, from 0 to --num_processes - 1."
    )
    flags.define(
        "start_timeout",
        120,
        "Maximum time to wait for all processes to start, in seconds.",
        least=1,
    )


class HostConsole(Reporter):
    """Reporter of every process except the first; prints only warnings, with the process index."""

    def __init__(self, console: Console, process: int) -> None:
        """Creates a reporter that prints to `console`, for the process with index `process`."""
        self._console, self._process = console, process

    def warning(self, text: str) -> None:
        self._console.warning(f"process {self._process}: {text}")


@contextlib.contextmanager
def joined_job(flags: Flags, console: Console) -> Iterator[Reporter]:
    """Joins this process to a job of one or more processes while the `with` block runs.

    Args:
      flags: flags of the command, including those that `define_hosts` defines.
      console: console of this process.

    Yields:
      The reporter to use: the console in the first process, a `HostConsole` in the others.

    Raises:
      DeepLabError: --coordinator, --num_processes or --process_id is invalid, the processes of the
        job cannot be detected, or the connection to another process was lost.
    """
    # The import is local, so that --help and wrong flags do not wait for JAX.
    import jax

    from deeplab_jax.parallel import Addresses, is_first_host, joined_hosts

    def end(message: str) -> None:
        try:
            console.error(message)
        finally:
            leave(FAILED_ELSEWHERE)

    addresses = Addresses(flags.coordinator, flags.num_processes, flags.process_id)
    with joined_hosts(addresses, start_seconds=flags.start_timeout, end=end):
        yield console if is_first_host() else HostConsole(console, jax.process_index())


def leave(status: int) -> NoReturn:
    """Ends the process with an exit status, without waiting for the other processes of the job.

    `sys.exit` is not used, because JAX would then wait for these processes. The process also ends
    if its output cannot be written, for example because a pipe is closed.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def in_a_job() -> bool:
    """Returns whether this process is part of a job of several processes."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
