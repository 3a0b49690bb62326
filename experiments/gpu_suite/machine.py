"""Description of the machine on which the suite runs."""

import shutil
import subprocess
from importlib import metadata
from typing import Any

from deeplab_jax.benchmark.machine import describe_machine
from experiments.gpu_suite.wheels import PACKAGES

QUERY = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]


def describe() -> dict[str, Any]:
    """Describes the machine.

    Returns:
      JSON-serializable dictionary with the keys:

      * `versions`: {package that the suite requires: version, or None if it is not installed}.
      * `card`: description of the first GPU; None if nvidia-smi is not installed or fails.
      * `date`, `processor`, `cores`, `devices`, `python`: see `describe_machine`.
    """
    versions = {package: _version(package) for package in PACKAGES}
    return describe_machine() | {"card": _card(), "versions": versions}


def _card() -> str | None:
    """Returns name, driver version and memory of the first GPU; None without working nvidia-smi."""
    if shutil.which(QUERY[0]) is None:
        return None
    answer = subprocess.run(QUERY, capture_output=True, text=True, check=False)
    return None if answer.returncode else answer.stdout.partition("\n")[0] or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
