"""Times commands, the first prediction and the first training step, each in a new process.

`measure_commands` runs `python -m deeplab_jax.benchmark.start FOLDER` to write the model and the
image that the timed commands use.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from deeplab_jax.benchmark.networks import split_network
from deeplab_jax.checkpointing import ModelDescription, write_model
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import PROGRAM_CACHE
from deeplab_jax.models import create_model
from deeplab_jax.reporter import Reporter

COMMAND = ["-m", "deeplab_jax.cli.main"]
PREDICT = [*COMMAND, "predict", "--model=model", "--output=out", "--overwrite"]
# Timed processes by name: arguments of Python, and expected exit status. The processes run in a
# folder that contains the model directory `model` and the image `photo.png`.
STARTS: Mapping[str, tuple[list[str], int]] = {
    "import_deeplab_jax": (["-c", "import deeplab_jax"], 0),
    "help": ([*COMMAND, "--help"], 0),
    "predict_help": ([*COMMAND, "predict", "--help"], 0),
    "models": ([*COMMAND, "models"], 0),
    "wrong_flag": ([*PREDICT, "--nonsense=1"], 2),
    "wrong_file": ([*PREDICT, "missing.png"], 2),
    "wrong_model": ([*PREDICT, "--model=missing", "photo.png"], 2),
    "wrong_config_field": (
        [*COMMAND, "train", "--config=shapes", "--workdir=run", "--config.nonsense=1"],
        2,
    ),
    "inspect": ([*COMMAND, "inspect", "deeplab_v3plus"], 0),
}
# Keywords of a published network for mobile devices: MobileNetV2 with half the channels, for images
# of 257 × 257 pixels.
SIDE, NUM_CLASSES = 257, 21
MOBILE = {
    "backbone": "mobilenet_v2",
    "depth_multiplier": 0.5,
    "output_stride": 8,
    "head": "pooling",
    "image_pooling": "crop",
    "pooling_crop": (SIDE, SIDE),
    "num_classes": NUM_CLASSES,
}
MODULE, FIRST_STEP = "deeplab_jax.benchmark.start", "deeplab_jax.benchmark.first_step"


def measure_commands(repetitions: int, reporter: Reporter) -> dict[str, float]:
    """Measures the wall time of commands, each in a new process.

    Args:
      repetitions: number of runs of each command.
      reporter: receives the progress.

    Returns:
      A dictionary of median wall times in seconds:

      - `NAME_seconds` for each command NAME in `STARTS`, such as `help_seconds`.
      - `first_mask_seconds`: `predict` on one image with warm compile caches.
      - `first_mask_cold_seconds`: the same command with empty compile caches.

    Raises:
      DeepLabError: a command did not exit with the expected status. The message contains the
        reason.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a separate process: if this process used the TPU, the timed processes could not use it.
        run_python(["-m", MODULE, name], {})
        predict = [*PREDICT, "photo.png"]
        runs = [
            (f"{start}_seconds", words, status, "caches")
            for start, (words, status) in STARTS.items()
            for _ in range(repetitions)
        ]
        runs += [
            ("first_mask_cold_seconds", predict, 0, f"caches_{number}")
            for number in range(repetitions)
        ]
        # The first of the cold runs fills these caches.
        runs += [("first_mask_seconds", predict, 0, "caches_0")] * repetitions
        found: dict[str, list[float]] = {}
        for figure, words, status, caches in reporter.track(runs, "starting processes"):
            found.setdefault(figure, []).append(_seconds(folder, words, status, folder / caches))
    return {figure: statistics.median(seconds) for figure, seconds in found.items()}


def _write_example(folder: Path) -> None:
    """Writes `model`, a model directory with constant weights, and `photo.png`, a black image."""
    model = create_model("deeplab_v3", **MOBILE)
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
    names = tuple(f"class_{index}" for index in range(NUM_CLASSES))
    palette = tuple((index, index, index) for index in range(NUM_CLASSES))
    description = ModelDescription("deeplab_v3", MOBILE, names, palette, (SIDE, SIDE))
    write_model(folder / "model", description, variables)
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(folder / "photo.png")


def _seconds(folder: Path, words: Sequence[str], status: int, caches: Path) -> float:
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(caches / "compiled"),
        PROGRAM_CACHE: str(caches / "programs"),
    }
    started = time.perf_counter()
    run_python(words, environment, status, cwd=folder)
    return time.perf_counter() - started


def measure_start(
    network: str, crop: tuple[int, int], batch_size: int, dtype: str = "float32"
) -> dict[str, float]:
    """Measures the time to the first training step with a cold and with a warm compile cache.

    Two processes run one after the other with the same new compile cache, each on one device.

    Args:
      network: ARCHITECTURE or ARCHITECTURE/BACKBONE.
      crop: (height, width) of the crops in pixels.
      batch_size: number of images per step.
      dtype: data type of the computation.

    Returns:
      The results of `first_step.measure` in both processes. The keys have the prefix `cold_` for
      the first process and `warm_` for the second one.

    Raises:
      DeepLabError: there is no such network, or a process failed.
    """
    architecture, keywords = split_network(network)
    create_model(architecture, dtype=dtype, **keywords)
    arguments = {"network": network, "crop": crop, "batch_size": batch_size, "dtype": dtype}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        for process in ("cold", "warm"):
            given = json.dumps(arguments | {"started": time.time()})
            environment = {"JAX_COMPILATION_CACHE_DIR": cache}
            parts = json.loads(run_python(["-m", FIRST_STEP], environment, input=given))
            figures |= {f"{process}_{name}": value for name, value in parts.items()}
    return figures


def run_python(
    command: Sequence[str], environment: Mapping[str, str], status: int = 0, **options: Any
) -> str:
    """Runs Python in a new process and returns its stdout.

    Args:
      command: command-line arguments of Python.
      environment: environment variables to add to those of this process.
      status: expected exit status.
      **options: keywords of `subprocess.run`.

    Raises:
      DeepLabError: the exit status is not `status`. The message contains the signal that ended the
        process, its last error, or the last line of its stderr.
    """
    process = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        **options,
    )
    if process.returncode != status:
        raise DeepLabError(f"`python {' '.join(command)}` failed: {_reason(process)}")
    return process.stdout


def _reason(process: subprocess.CompletedProcess[str]) -> str:
    """Returns the signal that ended a process, its last error, or the last line of its stderr."""
    if process.returncode < 0:
        return f"signal {-process.returncode} ended the process"
    lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
    # JAX adds notes below its errors, which do not state the cause.
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (errors or lines)[-1]


if __name__ == "__main__":
    _write_example(Path(sys.argv[1]))
