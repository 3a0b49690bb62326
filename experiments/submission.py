"""Submission of jobs through submitit, as local processes or on a SLURM cluster."""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.errors import DeepLabError

GPUS = "CUDA_VISIBLE_DEVICES"
QUERY = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")


def make_executor(cluster: str, folder: pathlib.Path, settings: Sequence[str]) -> Any:
    """Returns an executor of submitit, to which jobs are submitted.

    Args:
      cluster: `local` or `slurm`.
      folder: directory for the logs of the jobs.
      settings: settings of the executor as `KEY=VALUE`, such as `slurm_partition=gpu`,
        `timeout_min=600` or `gpus_per_node=1`.

    Raises:
      DeepLabError: submitit is not installed, or does not accept the cluster or a setting.
    """
    try:
        import submitit
    except ImportError as error:
        raise DeepLabError(
            "--submit requires submitit, which is not installed; run "
            "pip install 'deeplab_jax[sweeps]'"
        ) from error
    given = {key: value for text in settings for key, value in parse_keywords(text).items()}
    # By default, submitit ends a local job after five minutes.
    defaults = {"name": "deeplab_jax", "timeout_min": 7 * 24 * 60}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**defaults | given)
    # submitit checks the types of some settings by assertions.
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"submitit does not accept --submit={cluster} with these --slurm settings: {error}"
        ) from error
    return executor


def submit_together(executor: Any, calls: Sequence[Callable[[], list[str]]]) -> list[Any]:
    """Submits functions without arguments, and returns one job of submitit for each.

    Raises:
      DeepLabError: the cluster refuses the jobs, for example because it has no such partition.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if not calls:
        return []
    try:
        with executor.batch():
            return [executor.submit(call) for call in calls]
    except (FailedJobError, FailedSubmissionError) as error:
        raise DeepLabError(
            f"the cluster refused the jobs: {error}; correct the --slurm settings"
        ) from error


def gpu_environments(processes: int) -> list[dict[str, str]]:
    """Returns environment variables that divide the GPUs of this machine among processes.

    If there are fewer GPUs than processes, several processes share a GPU. Without NVIDIA GPUs, the
    dictionaries are empty.
    """
    gpus = _visible_gpus()
    if not gpus:
        return [{} for _ in range(processes)]
    if processes <= len(gpus):
        return [{GPUS: ",".join(gpus[start::processes])} for start in range(processes)]
    # By default, JAX allocates most of the memory of a GPU for a single process.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [{GPUS: gpus[number % len(gpus)]} | shared for number in range(processes)]


def use_gpus(environment: Mapping[str, str]) -> None:
    """Sets an environment that `gpu_environments` returned; JAX must not have used a device yet.

    submitit hides all GPUs from local processes, unless the setting `gpus_per_node` is given. In
    all other cases, nothing is changed.
    """
    if os.environ.get(GPUS) == "":
        os.environ.update(environment)


def _visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs that this process may use, as in CUDA_VISIBLE_DEVICES.

    JAX is not called, because it would allocate most of the memory of the GPUs.
    """
    chosen = os.environ.get(GPUS)
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip()]
    if shutil.which(QUERY[0]) is None:
        return []
    answer = subprocess.run(QUERY, capture_output=True, text=True, check=False)
    return [] if answer.returncode else answer.stdout.split()


def wait_for(submitted: Sequence[Any]) -> list[str]:
    """Waits for all submitted jobs, and returns one line of text per failure.

    Args:
      submitted: jobs of submitit, each of which runs `experiments.batch.run_share`.

    Returns:
      The lines that the jobs return, one for each failed training run, and one line with the
      exception for each job that raises one.
    """
    failures: list[str] = []
    for job in submitted:
        try:
            failures += job.result()
        # The exception of a failed process can be of any type.
        except Exception as error:
            failures.append(f"job {job.job_id}: {' '.join(str(error).split())[-400:]}")
    return failures
