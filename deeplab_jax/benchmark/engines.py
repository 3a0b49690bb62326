"""Latency and memory of models in JAX and other runtimes (engines), one process per model.

Each model runs in a process of its own, so that no engine uses memory or threads of another one.
The process, `python -m deeplab_jax.benchmark.engines`, reads the arguments of `measure` as a JSON
object from stdin, and writes the results as a JSON object to stdout.
"""

import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deeplab_jax import loading
from deeplab_jax.benchmark.machine import run_seconds
from deeplab_jax.benchmark.networks import made_variables, split_network
from deeplab_jax.benchmark.start import run_python
from deeplab_jax.checkpointing import ModelDescription, write_model
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.files import PROGRAM_CACHE
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.inference.forward import only_class_map
from deeplab_jax.models import create_model
from deeplab_jax.reporter import Reporter

MODULE = "deeplab_jax.benchmark.engines"
# Entries of /proc/self/status: current and maximum resident memory of the process, in kibibytes.
CURRENT, LARGEST = "VmRSS", "VmHWM"


def write_random_model(directory: pathlib.Path, network: str, size: tuple[int, int]) -> None:
    """Writes the model directory of a network with random variables, for timing only.

    Args:
      directory: path of the model directory.
      network: ARCHITECTURE or ARCHITECTURE/BACKBONE.
      size: inference size of the model, (height, width) in pixels.

    Raises:
      DeepLabError: there is no such network.
    """
    architecture, keywords = split_network(network)
    model = create_model(architecture, **keywords)
    names = tuple(map(str, range(model.architecture.num_classes)))
    palette, overrides = bit_interleaved_palette(len(names)), model.architecture.describe()
    description = ModelDescription(architecture, overrides, names, palette, size)
    write_model(directory, description, made_variables(model))


def measure_models(
    models: Mapping[str, pathlib.Path],
    size: tuple[int, int],
    batch_size: int = 1,
    *,
    repetitions: int = 5,
    reporter: Reporter,
) -> dict[str, dict[str, Any]]:
    """Measures models one after the other, each in a process of its own.

    Args:
      models: paths of model directories or exported files; the keys are names for the results.
      size: (height, width) of the images in pixels.
      batch_size: number of images per call.
      repetitions: number of timed runs of each model.
      reporter: receives progress events.

    Returns:
      For each key of `models`, a dictionary of measurements:

      - `seconds`: median time of a call, from pixels to class maps, after a warm-up run.
      - `images_per_second`: throughput.
      - `start_seconds`: time to load the model and compute the first class maps. For a model
        directory, the compile caches are warm.
      - `peak_bytes`: memory that loading and running the model adds to the process; None: unknown.
      - `file_bytes`: size of the model on disk.

    Raises:
      DeepLabError: a process failed. The message contains the reason.
    """
    found = {}
    with tempfile.TemporaryDirectory() as caches:
        environment = {"JAX_COMPILATION_CACHE_DIR": caches, PROGRAM_CACHE: caches}
        given = {"size": size, "batch_size": batch_size, "repetitions": repetitions}
        for row, path in reporter.track(list(models.items()), "measuring, engine"):
            text = json.dumps(given | {"model": str(path)})
            if path.is_dir():
                # Fills the caches.
                run_python(["-m", MODULE], environment, input=text)
            figures = json.loads(run_python(["-m", MODULE], environment, input=text))
            found[row] = figures | {"file_bytes": total_bytes([path])}
    return found


def total_bytes(paths: Iterable[pathlib.Path]) -> int:
    """Returns the total size of files in bytes.

    Args:
      paths: paths of files or directories. All files in a directory and in its subdirectories are
        counted.
    """
    files = {file for path in paths for file in (path, *path.rglob("*")) if file.is_file()}
    return sum(file.stat().st_size for file in files)


def measure(
    model: str, size: tuple[int, int], batch_size: int, repetitions: int
) -> dict[str, float | None]:
    """Measures the speed and the memory of one model in this process.

    Args:
      model: path of a model directory or an exported file.
      size: (height, width) of the images in pixels.
      batch_size: number of images per call.
      repetitions: number of timed runs.

    Returns:
      The measurements that `measure_models` returns for each model, except `file_bytes`.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), np.uint8)
    before, started = process_memory(CURRENT), time.perf_counter()
    predictor = loading.load(model)
    forward = predictor.network.forward(InferenceOptions(), only_class_map)
    np.asarray(forward(images))
    start_seconds = time.perf_counter() - started
    seconds = statistics.median(run_seconds(lambda: forward(images), repetitions))
    after = process_memory(LARGEST)
    return {
        "seconds": seconds,
        "images_per_second": batch_size / seconds,
        "start_seconds": start_seconds,
        "peak_bytes": None if before is None or after is None else after - before,
    }


def process_memory(entry: str) -> int | None:
    """Returns the resident memory of this process in bytes; None if the system does not report it.

    Args:
      entry: entry of /proc/self/status to read: CURRENT for the current memory, LARGEST for the
        maximum since the process started.
    """
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    # Some sandboxes for containers, such as gVisor, do not report the maximum.
    return int(lines[entry].split()[0]) * 1024 if entry in lines else None


def main() -> None:
    """Reads the arguments of `measure` as JSON from stdin and writes its result to stdout."""
    arguments: dict[str, Any] = json.load(sys.stdin)
    json.dump(measure(**arguments), sys.stdout)


if __name__ == "__main__":
    main()
