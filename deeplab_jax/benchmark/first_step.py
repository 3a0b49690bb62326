"""Times a new process up to its first training step: `python -m deeplab_jax.benchmark.first_step`.

`deeplab_jax.benchmark.start` runs this module as a process that reads one JSON object from stdin
and writes one to stdout.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Number of random images that are used as dataset, and number of their classes.
IMAGES, NUM_CLASSES = 16, 21


def measure(
    network: str, crop: tuple[int, int], batch_size: int, dtype: str, started: float
) -> dict[str, float]:
    """Starts a training run on one device and times each phase up to the end of the first step.

    Args:
      network: ARCHITECTURE or ARCHITECTURE/BACKBONE.
      crop: (height, width) of the crops in pixels.
      batch_size: number of images per step.
      dtype: data type of the computation.
      started: time at which the process was started, from `time.time()`.

    Returns:
      A dictionary with the wall time of each phase in seconds, the total time and the loss:

      - `imports_seconds`: from `started` to the end of the imports.
      - `devices_and_data_seconds`: initializing the device, and making the first batch.
      - `initialization_seconds`: initializing the training state.
      - `tracing_seconds`, `lowering_seconds`: tracing and lowering the training step.
      - `compiling_or_reading_seconds`: compiling the step, or reading it from the compile cache.
      - `first_step_seconds`: running the first step.
      - `seconds`, `loss`: total time since `started`, and loss of the first step.
    """
    import jax
    import numpy as np

    from deeplab_jax import config as configs
    from deeplab_jax.benchmark.networks import random_batch, split_network
    from deeplab_jax.parallel import make_mesh
    from deeplab_jax.reporter import Reporter
    from deeplab_jax.training.setup import assemble, run_batches
    from deeplab_jax.training.step import make_run_step

    parts = {"imports_seconds": time.time() - started}
    with _timed(parts, "devices_and_data_seconds"):
        config = configs.default()
        architecture, keywords = split_network(network)
        config.model.update(architecture=architecture, dtype=dtype, **keywords)
        # JSON has no tuples, so the crop may be a list.
        height, width = crop
        config.augmentation.crop_size, config.training.batch_size = (height, width), batch_size
        drawn = random_batch(IMAGES, (height, width), NUM_CLASSES)
        data = drawn["image"], drawn["label"]
        mesh = make_mesh(jax.devices()[:1])
        run = assemble(config, None, mesh, data, data, reporter=Reporter())
        batch = next(run_batches(run, 0))
    with _timed(parts, "initialization_seconds"):
        state = run.state_spec.create(seed=0)
        jax.block_until_ready(state)
    with _timed(parts, "tracing_seconds"):
        traced = make_run_step(run, state).trace(state, batch)
    with _timed(parts, "lowering_seconds"):
        lowered = traced.lower()
    with _timed(parts, "compiling_or_reading_seconds"):
        compiled = lowered.compile()
    with _timed(parts, "first_step_seconds"):
        state, metrics = compiled(state, batch)
        loss = np.asarray(metrics["loss"])
    parts["seconds"] = time.time() - started
    return parts | {"loss": float(loss)}


@contextmanager
def _timed(parts: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    parts[name] = time.perf_counter() - started


def main() -> None:
    """Calls `measure` with arguments read as JSON from stdin, and writes the result to stdout."""
    arguments: dict[str, Any] = json.load(sys.stdin)
    json.dump(measure(**arguments), sys.stdout)


if __name__ == "__main__":
    main()
