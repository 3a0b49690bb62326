"""Submission of jobs through submitit, as local processes or on a SLURM cluster."""

import pathlib
from collections.abc import Sequence
from typing import Any

from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.errors import DeepLabError


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
    except (NameError, RuntimeError, TypeError) as error:
        raise DeepLabError(
            f"submitit does not accept --submit={cluster} with these --slurm settings: {error}"
        ) from error
    return executor


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
