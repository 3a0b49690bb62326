"""submitit: jobs as local processes or on a SLURM cluster."""

import pathlib
from collections.abc import Sequence
from typing import Any

from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.errors import DeepLabError


def make_executor(cluster: str, folder: pathlib.Path, settings: Sequence[str]) -> Any:
    """Returns submitit's executor.

    Args:
      cluster: `local` or `slurm`.
      folder: for its logs.
      settings: `KEY=VALUE`, as `slurm_partition=gpu`, `timeout_min=600`, `gpus_per_node=1`.

    Raises:
      DeepLabError: submitit is not installed, or does not know a setting.
    """
    try:
        import submitit
    except ImportError as error:
        raise DeepLabError(
            "--submit needs submitit; install it with pip install 'deeplab_jax[sweeps]'"
        ) from error
    given = {key: value for text in settings for key, value in parse_keywords(text).items()}
    # Without a limit of its own a local job would end after five minutes.
    defaults = {"name": "deeplab_jax", "timeout_min": 7 * 24 * 60}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**defaults | given)
    except (NameError, RuntimeError, TypeError) as error:
        raise DeepLabError(f"submitit on {cluster}: {error}") from error
    return executor


def wait_for(submitted: Sequence[Any]) -> list[str]:
    """Waits for jobs and returns why some failed, a line each."""
    failures: list[str] = []
    for job in submitted:
        try:
            failures += job.result()
        # submitit reports any failure of a process.
        except Exception as error:
            failures.append(f"job {job.job_id}: {' '.join(str(error).split())[-400:]}")
    return failures
