"""Agreement, size, latency and memory of each runtime: `python -m experiments.runtimes`.

Exports models to every format, runs the files by their runtimes on scikit-image's photographs, and
writes the table of docs/guides/deploy.md. Latency and memory are those of a process of its own,
from pixels to class maps. Core ML files are written, but not run.

example:
  python -m experiments.runtimes --models=models/dm05,models/voc --calibrate=VOC2012/JPEGImages
"""

import argparse
import csv
import datetime
import importlib.metadata
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from deeplab_jax.benchmark.engines import measure_models, total_bytes
from deeplab_jax.benchmark.machine import describe_machine
from deeplab_jax.data.crops import fitted
from deeplab_jax.data.images import read_image
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.engines import load_file
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export
from deeplab_jax.inference import Predictor, load
from deeplab_jax.inference.padding import padded_size
from deeplab_jax.reporter import LoggingReporter

MEASURED = pathlib.Path(__file__).parent / "results" / "measured" / "runtimes.csv"
COLUMNS = ("row", "quantity", "value", "unit", "command", "commit", "hardware", "date")
PACKAGES = ("jax", "onnxruntime", "ai-edge-litert", "opencv-python-headless", "coremltools")
# Number of calibration images.
MAX_CALIBRATION = 100
# Row → format, dtype and whether it is calibrated; suffix of the file.
FILES = {
    "ONNX Runtime": ("onnx", "float32", False),
    "ONNX Runtime, float16": ("onnx", "float16", False),
    "LiteRT": ("tflite", "float32", False),
    "LiteRT, float16": ("tflite", "float16", False),
    "LiteRT, 8-bit integers": ("tflite", "float32", True),
    "Core ML, not run": ("coreml", "float32", False),
    "Core ML, float16, not run": ("coreml", "float16", False),
}
SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}


def photographs(size: tuple[int, int]) -> list[np.ndarray]:
    """Returns scikit-image's astronaut, cat and coffee, downsampled to fit into (H, W)."""
    from skimage import data

    return [fitted(image, size) for image in (data.astronaut(), data.chelsea(), data.coffee())]


def export_files(
    predictor: Predictor, size: tuple[int, int], calibration: Sequence[np.ndarray], folder: Any
) -> dict[str, pathlib.Path]:
    """Writes a file for each row of FILES and returns their paths."""
    paths = {}
    for row, (format, dtype, calibrated) in FILES.items():
        if calibrated and not calibration:
            continue
        path = folder / f"{len(paths)}{SUFFIXES[format]}"
        options = ExportOptions(size=size, batch=1, dtype=dtype)
        export(predictor, path, format, options, calibration if calibrated else None)
        paths[row] = path
    return paths


def agreement(
    expected: Sequence[np.ndarray], found: Callable[[np.ndarray], np.ndarray], images: Any
) -> float:
    """Returns the percentage of pixels with the same class, over all images."""
    same = [own == found(image) for own, image in zip(expected, images, strict=True)]
    return 100 * sum(map(np.sum, same)) / sum(map(np.size, same))


def measure_model(
    path: pathlib.Path, calibrate: pathlib.Path | None, repetitions: int
) -> Iterator[tuple[str, str, str, str]]:
    """Yields row, quantity, value and unit of each runtime of a model directory."""
    predictor = load(path)
    size = padded_size(predictor.model, predictor.inference_size or (513, 513))
    predictor = predictor.with_inference_size(size)
    images, label = photographs(size), f"{path.name}, {size[0]} × {size[1]}"
    expected = [predictor(image) for image in images]
    calibration = []
    if calibrate is not None:
        files = sorted(calibrate.iterdir())[:MAX_CALIBRATION]
        calibration = [read_image(file) for file in files]
    with tempfile.TemporaryDirectory() as name:
        files = export_files(predictor, size, calibration, pathlib.Path(name))
        run = {row: file for row, file in files.items() if "not run" not in row}
        figures = measure_models(
            {"JAX": path, **run}, size, repetitions=repetitions, reporter=LoggingReporter()
        )
        for row, file in {"JAX": path, **files}.items():
            if row in figures:
                other = predictor if row == "JAX" else load_file(file)
                equal = agreement(expected, other, images)
                yield f"{label}: {row}", "equal classes", f"{equal:.4f}", "%"
                seconds, peak = figures[row]["seconds"], figures[row]["peak_bytes"]
                yield f"{label}: {row}", "latency", f"{1e3 * seconds:.1f}", "ms"
                yield f"{label}: {row}", "memory", f"{peak / 1e6:.0f}", "MB"
            yield f"{label}: {row}", "size on disk", f"{total_bytes([file]) / 1e6:.1f}", "MB"


def hardware() -> str:
    """Returns processor and versions for the line under the table."""
    machine = describe_machine()
    processor = " ".join(str(machine["processor"]).split()[:2])
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    python = f"Python {machine['python'].rpartition('.')[0]}"
    return ", ".join([f"{machine['cores']} cores of an {processor}", python, *versions])


def main(words: Sequence[str]) -> int:
    """Measures, writes the table and returns the exit status."""
    parser = argparse.ArgumentParser(
        "experiments.runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", required=True, help="model directories, comma-separated")
    parser.add_argument("--calibrate", help="folder of images for the 8-bit file (default: none)")
    parser.add_argument("--repetitions", type=int, default=20, help="runs of each median")
    parser.add_argument("--output", default=str(MEASURED), help="path of the CSV file")
    flags = parser.parse_args(words)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    origin = {
        "command": f"python -m experiments.runtimes {' '.join(words)}",
        "commit": commit,
        "hardware": hardware(),
        "date": datetime.date.today().isoformat(),
    }
    calibrate = pathlib.Path(flags.calibrate) if flags.calibrate else None
    rows = []
    for model in flags.models.split(","):
        try:
            for entry in measure_model(pathlib.Path(model), calibrate, flags.repetitions):
                print(*entry, flush=True)
                rows.append(dict(zip(COLUMNS, entry, strict=False)) | origin)
        except DeepLabError as error:
            print(error, file=sys.stderr)
            return 2
    with pathlib.Path(flags.output).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
