"""The flags that say which processes a job has, and what each of them prints."""

import contextlib
import os
import sys
from collections.abc import Iterator

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.reporter import Reporter

FAILED_ELSEWHERE = 3


def define_host_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --coordinator, --num_processes, --process_id and --start_timeout."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_string(
        "coordinator",
        None,
        "host:port of process 0; TPU pods, SLURM and GKE are found without it.",
        **own,
    )
    absl_flags.DEFINE_integer("num_processes", None, "Of the job, with --coordinator.", **own)
    absl_flags.DEFINE_integer("process_id", None, "0 to --num_processes - 1.", **own)
    absl_flags.DEFINE_integer(
        "start_timeout", 120, "Seconds to wait for all processes.", lower_bound=1, **own
    )


class HostConsole(Reporter):
    """What a process other than the first shows: warnings, with its number."""

    def __init__(self, console: Console, process: int) -> None:
        """Passes warnings on to a console."""
        self._console, self._process = console, process

    def warning(self, text: str) -> None:
        self._console.warning(f"process {self._process}: {text}")


@contextlib.contextmanager
def joined_job(flags: absl_flags.FlagValues, console: Console) -> Iterator[Reporter]:
    """Joins the processes of the job for the time of the block, which may be this one alone.

    Args:
      flags: of `define_host_flags`.
      console: of this process.

    Yields:
      Whom work is to report to: the console in the first process, elsewhere one that keeps silent
      but for warnings.

    Raises:
      DeepLabError: as `joined_hosts`.
    """
    # Imported late, so that --help and mistakes answer at once.
    import jax

    from deeplab_jax.parallel import Addresses, is_first_host, joined_hosts

    def end(message: str) -> None:
        console.error(message)
        leave(FAILED_ELSEWHERE)

    addresses = Addresses(flags.coordinator, flags.num_processes, flags.process_id)
    with joined_hosts(addresses, start_seconds=flags.start_timeout, end=end):
        yield console if is_first_host() else HostConsole(console, jax.process_index())


def leave(status: int) -> None:
    """Ends the process at once: at an ordinary end JAX would wait for the others of the job."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def in_a_job() -> bool:
    """Whether this process still belongs to a job of several."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
