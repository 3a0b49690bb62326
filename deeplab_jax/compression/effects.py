"""Which mean IoU, size and latency a model has before and after a change."""

import json
import os
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
from deeplab_jax.models.summary import summarize
from deeplab_jax.reporter import LoggingReporter, Reporter

REPORT_FILE = "report.json"
# Timed calls of each network, one network after the other so that all meet the same machine.
REPEATS = 15
# Rows of the table: key, what it is, how it is written.
COLUMNS = (
    ("mean_iou", "mean IoU", "{:.4f}"),
    ("parameters", "parameters", "{:,}"),
    ("nonzero_kernel_share", "kernels not 0", "{:.1%}"),
    ("macs", "multiply-adds", "{:,}"),
    ("array_bytes", "bytes of arrays", "{:,}"),
    ("file_bytes", "bytes on disk", "{:,}"),
    ("latency_ms", "latency in ms", "{:.1f}"),
)


def compare(
    models: Mapping[str, Predictor],
    dataset: Dataset,
    *,
    size: Size | None = None,
    batch_size: int = 8,
    workers: int = 0,
    limit: int | None = None,
    tflite: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measures models side by side.

    Args:
      models: by what the report calls them, the one that the others are compared with first.
      dataset: to measure mean IoU on.
      size: (H, W) that images are padded to, and that latency is measured at; default: each image
        as `predict` pads it, and for latency the size that holds every image.
      batch_size, workers, limit: of the evaluation.
      tflite: a file to time in the same run.
      reporter: receives progress events.

    Returns:
      `{"models": {name: numbers}, "ratios": {name: numbers}, "settings": …}`, JSON-ready.

    Raises:
      DeepLabError: as `evaluate`; or the TFLite file cannot be run.
    """
    reporter = reporter or LoggingReporter()
    how = {"size": size, "batch_size": batch_size, "workers": workers, "limit": limit}
    first = next(iter(models.values()))
    size = padded_size(first.model, size or largest_size(dataset), None)
    rows: dict[str, dict[str, Any]] = {}
    for name, predictor in models.items():
        reporter.message(f"measuring: {name}")
        metrics = evaluate(predictor, dataset, reporter=reporter, **how)
        rows[name] = {"mean_iou": metrics["mean_iou"]} | costs(predictor, size)
    calls = {name: _network_call(predictor, size) for name, predictor in models.items()}
    if tflite is not None:
        calls[tflite.name] = tflite_call(tflite)
    for name, milliseconds in latencies(calls).items():
        rows.setdefault(name, {})["latency_ms"] = milliseconds
    baseline, *others = models
    return {
        "models": rows,
        "ratios": {name: _ratios(rows[name], rows[baseline]) for name in others},
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
    """Returns what a model takes: numbers, multiply-adds, bytes in memory and on disk.

    Args:
      predictor: of the model.
      size: (H, W) of the image whose multiply-adds are counted.
    """
    variables = jax.device_get(predictor.variables)
    leaves = jax.tree.leaves(variables)
    kernels = [
        leaf
        for path, leaf in traverse_util.flatten_dict(variables["params"]).items()
        if path[-1] == "kernel"
    ]
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "nonzero_kernel_share": sum(map(np.count_nonzero, kernels))
        / sum(kernel.size for kernel in kernels),
        "macs": summarize(predictor.model, size).macs,
        "array_bytes": sum(leaf.nbytes for leaf in leaves),
        "file_bytes": _bytes_on_disk(predictor, variables),
    }


def _bytes_on_disk(predictor: Predictor, variables: Any) -> int:
    """Returns the bytes of a model directory with these variables; a workdir holds more."""
    # The description is small beside the variables, whatever the network.
    description = checkpointing.ModelDescription("deeplab_v3", {}, (), ())
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        checkpointing.write_model(directory, description, variables)
        return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _network_call(predictor: Predictor, size: Size) -> Callable[[], Any]:
    """Returns a call of the compiled network on one image, to class map, that waits for it."""
    forward = predictor.network.forward(InferenceOptions(), only_class_map)
    channels = predictor.model.architecture.in_channels
    image = np.random.default_rng(0).integers(0, 256, (1, *size, channels), np.uint8)
    return lambda: jax.block_until_ready(forward(image))


def tflite_call(path: Path) -> Callable[[], Any]:
    """Returns a call of a TFLite file on one image of noise, on all cores.

    Raises:
      DeepLabError: ai-edge-litert is not installed, or the file cannot be read.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise DeepLabError("to time a TFLite file: pip install ai-edge-litert") from error
    try:
        interpreter = Interpreter(str(path), num_threads=len(os.sched_getaffinity(0)))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise DeepLabError(f"{path} cannot be run as TFLite: {error}") from error
    given = interpreter.get_input_details()[0]
    noise = np.random.default_rng(0).integers(0, 256, given["shape"])
    interpreter.set_tensor(given["index"], noise.astype(given["dtype"]))
    return interpreter.invoke


def latencies(calls: Mapping[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Returns the median duration of each call in milliseconds; the first calls do not count."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}


def _ratios(row: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        key: row[key] / baseline[key] if row[key] is not None and baseline[key] else None
        for key in baseline
    }


def report_table(report: Mapping[str, Any]) -> str:
    """Returns the report as lines: a row a measure, a column a model."""
    models = report["models"]
    baseline = next(iter(models))
    lines = [["", *models, *(f"{name} / {baseline}" for name in report["ratios"])]]
    for key, title, shape in COLUMNS:
        cells = [_cell(models[name].get(key), shape) for name in models]
        cells += [_cell(ratios.get(key), "{:.3f}") for ratios in report["ratios"].values()]
        lines.append([title, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: float | int | None, shape: str) -> str:
    return "–" if value is None else shape.format(value)


def write_comparison(directory: Path, report: Mapping[str, Any]) -> None:
    """Writes the report into a model directory."""
    write_text(directory / REPORT_FILE, json.dumps(report, indent=2) + "\n")
