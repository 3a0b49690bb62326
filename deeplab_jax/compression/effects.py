"""Comparison of models before and after compression: mean IoU, size and latency."""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from deeplab_jax import checkpointing
from deeplab_jax.data import Dataset
from deeplab_jax.data.datasets import largest_size
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import evaluate
from deeplab_jax.files import write_text
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import only_class_map
from deeplab_jax.inference.padding import Size, padded_size
from deeplab_jax.lazy import import_extra
from deeplab_jax.models.summary import summarize
from deeplab_jax.parallel.chips import cores
from deeplab_jax.reporter import LoggingReporter, Reporter

REPORT_FILE = "report.json"
# Number of timed calls of each network. Calls of the networks alternate, so that all are timed
# under the same conditions.
REPEATS = 15
# Rows of the table: key in the report, title and format.
COLUMNS = (
    ("mean_iou", "mean IoU", "{:.4f}"),
    ("parameters", "parameters", "{:,}"),
    ("nonzero_kernel_share", "nonzero weights", "{:.1%}"),
    ("macs", "multiply-adds", "{:,}"),
    ("array_bytes", "bytes in memory", "{:,}"),
    ("file_bytes", "bytes on disk", "{:,}"),
    ("latency_ms", "latency in ms", "{:.1f}"),
)


def compare(
    models: Mapping[str, Predictor],
    dataset: Dataset,
    *,
    size: Size | None = None,
    limit: int | None = None,
    tflite: Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measures mean IoU, size and latency of several models under equal conditions.

    Args:
      models: models by name in the report; the first one is the baseline.
      dataset: dataset for mean IoU.
      size: (H, W) to which images are padded (default: as in `evaluate`). Latency and `macs` are
        measured at this size (default: that of the largest image), rounded up to a legal size.
      limit: maximum number of images to evaluate (default: all).
      tflite: TFLite file; its latency at its own input size is added to `models`, by file name.
      reporter: receives progress events.
      **settings: keywords of `evaluate`: batch_size, mesh, workers.

    Returns:
      JSON-serializable dictionary with the keys:

      * `models`: `mean_iou`, `latency_ms` and the values that `costs` returns, by model name.
      * `ratios`: measurements of each of `models` except the baseline, divided by the baseline's.
      * `settings`: dataset, number of images, sizes and hardware.

    Raises:
      DeepLabError: a model cannot be evaluated on the dataset, or the TFLite file cannot be run.
    """
    reporter = reporter or LoggingReporter()
    settings |= {"size": size, "limit": limit, "reporter": reporter}
    baseline, *others = models
    size = padded_size(models[baseline].model, size or largest_size(dataset), None)
    rows: dict[str, dict[str, Any]] = {}
    for name, predictor in models.items():
        reporter.message(f"measuring: {name}")
        mean_iou = evaluate(predictor, dataset, **settings)["mean_iou"]
        rows[name] = {"mean_iou": mean_iou} | costs(predictor, size)
    calls = {name: _network_call(predictor, size) for name, predictor in models.items()}
    if tflite is not None:
        calls[tflite.name] = tflite_call(tflite)
    for name, milliseconds in latencies(calls).items():
        rows.setdefault(name, {})["latency_ms"] = milliseconds
    first = rows[baseline]
    ratios = {name: {key: _ratio(rows[name][key], first[key]) for key in first} for name in others}
    return {
        "models": rows,
        "ratios": ratios,
        "settings": {
            "dataset": f"{dataset.name}/{dataset.split}",
            "num_images": len(dataset) if limit is None else min(limit, len(dataset)),
            "latency_size": list(size),
            "latency_batch_size": 1,
            "device": jax.devices()[0].device_kind,
            "machine": platform.processor() or platform.machine(),
        },
    }


def costs(predictor: Predictor, size: Size) -> dict[str, Any]:
    """Returns the numbers of parameters and multiply-adds of a model, and its sizes in bytes.

    Args:
      predictor: predictor of the model.
      size: (H, W) in pixels of the image for which multiply-adds are counted.

    Returns:
      Dictionary with the keys:

      * `parameters`: number of parameters.
      * `nonzero_kernel_share`: fraction of kernel weights that are not 0.
      * `macs`: number of multiply-adds.
      * `array_bytes`: size of all variables in memory.
      * `file_bytes`: size of the model directory.
    """
    variables = jax.device_get(predictor.variables)
    params = traverse_util.flatten_dict(variables["params"])
    kernels = [leaf for path, leaf in params.items() if path[-1] == "kernel"]
    weights = sum(kernel.size for kernel in kernels)
    return {
        "parameters": sum(leaf.size for leaf in params.values()),
        "nonzero_kernel_share": sum(map(np.count_nonzero, kernels)) / weights,
        "macs": summarize(predictor.model, size).macs,
        "array_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(variables)),
        "file_bytes": _bytes_on_disk(variables),
    }


def _bytes_on_disk(variables: Any) -> int:
    """Returns the size in bytes of a model directory with these variables."""
    # The description of any network is negligibly small.
    description = checkpointing.ModelDescription("deeplab_v3", {}, (), ())
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        checkpointing.write_model(directory, description, variables)
        return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _network_call(predictor: Predictor, size: Size) -> Callable[[], Any]:
    """Returns a function that runs the network on one random image and waits for the class map."""
    forward = predictor.network.forward(InferenceOptions(), only_class_map)
    bands = predictor.bands
    image = np.random.default_rng(0).integers(0, 256, (1, *size, bands.count), bands.dtype)
    return lambda: jax.block_until_ready(forward(image))


def tflite_call(path: Path) -> Callable[[], Any]:
    """Returns a function that runs a TFLite file once on a random image, on all processor cores.

    Raises:
      DeepLabError: ai-edge-litert is not installed, or the file cannot be read.
    """
    litert = import_extra("ai_edge_litert.interpreter", "tflite", "timing a TFLite file")
    try:
        interpreter = litert.Interpreter(str(path), num_threads=cores())
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DeepLabError(f"{path} cannot be run as a TFLite file: {error}") from error
    given = interpreter.get_input_details()[0]
    noise = np.random.default_rng(0).integers(0, 256, given["shape"])
    interpreter.set_tensor(given["index"], noise.astype(given["dtype"]))
    return interpreter.invoke


def latencies(calls: Mapping[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Returns the median duration of each call in milliseconds, by name.

    Args:
      calls: functions to time, by name. Each function is called once for warm-up before timing.
      repeats: number of timed calls of each function.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}


def _ratio(value: float | None, baseline: float | None) -> float | None:
    return value / baseline if value is not None and baseline else None


def report_table(report: Mapping[str, Any]) -> str:
    """Returns a result of `compare` as a text table: a row per metric, a column per model."""
    models, ratios = report["models"], report["ratios"]
    lines = [["", *models, *(f"{name} / {next(iter(models))}" for name in ratios)]]
    for key, title, shape in COLUMNS:
        cells = [_cell(row.get(key), shape) for row in models.values()]
        lines.append([title, *cells, *(_cell(row.get(key), "{:.3f}") for row in ratios.values())])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shape = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return "\n".join(shape.format(*line).rstrip() for line in lines)


def _cell(value: float | int | None, shape: str) -> str:
    return "–" if value is None else shape.format(value)


def write_comparison(directory: Path, report: Mapping[str, Any]) -> None:
    """Writes a result of `compare` to `report.json` in a model directory."""
    write_text(directory / REPORT_FILE, json.dumps(report, indent=2) + "\n")
