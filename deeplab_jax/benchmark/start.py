"""How long a new process takes to its first training step, with an empty and a full cache."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from deeplab_jax.benchmark.networks import split_network
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model

FIRST_STEP = "deeplab_jax.benchmark.first_step"


def measure_start(
    network: str, crop: tuple[int, int], batch_size: int, dtype: str = "float32"
) -> dict[str, float]:
    """Starts two processes, one after the other, that share a cache of compiled programs.

    Args:
      network: ARCHITECTURE or ARCHITECTURE/BACKBONE.
      crop: height and width in pixels.
      batch_size: images a step.
      dtype: of the computation.

    Returns:
      `cold_…` and `warm_…` of what `first_step.measure` returns: seconds in all and of each part.

    Raises:
      DeepLabError: there is no such network; and as `run_python`.
    """
    architecture, keywords = split_network(network)
    create_model(architecture, dtype=dtype, **keywords)
    arguments = {"network": network, "crop": crop, "batch_size": batch_size, "dtype": dtype}
    figures = {}
    with tempfile.TemporaryDirectory() as cache:
        for process in ("cold", "warm"):
            given = arguments | {"started": time.time()}
            parts = run_python(["-m", FIRST_STEP], given, {"JAX_COMPILATION_CACHE_DIR": cache})
            figures |= {f"{process}_{name}": value for name, value in parts.items()}
    return figures


def run_python(
    command: Sequence[str], given: dict[str, object], environment: dict[str, str]
) -> dict[str, float]:
    """Runs a new interpreter and returns the JSON that it writes.

    Args:
      command: its arguments.
      given: JSON that it reads from stdin.
      environment: what it has besides this process's.

    Raises:
      DeepLabError: it failed; says the last line that it wrote.
    """
    process = subprocess.run(
        [sys.executable, *command],
        input=json.dumps(given),
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise DeepLabError((process.stderr.strip().splitlines() or ["the process failed"])[-1])
    return json.loads(process.stdout)
