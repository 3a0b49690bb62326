"""Accuracy, size, latency and memory of exported files: `python -m experiments.runtimes`.

Exports models to ONNX, TFLite and Core ML, runs the files in their runtimes on photographs of
scikit-image, and writes the results to a CSV file. docs/guides/deploy.md shows them as a table.
Latency and memory of each file are measured in a separate process, from pixels to class maps. The
memory is what loading and running the file adds to that process. Core ML files are written, but not
run. The ONNX file also runs in OpenCV and, with --web, in onnxruntime-web, whose memory is not
measured. --web requires Node and the npm package onnxruntime-web.

example:
  python -m experiments.runtimes --models=models/dm05,models/voc --calibrate=VOC2012/JPEGImages \\
      --web=.venv/web/node_modules
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from deeplab_jax.benchmark.engines import (
    CURRENT,
    LARGEST,
    measure_models,
    process_memory,
    total_bytes,
)
from deeplab_jax.benchmark.machine import run_seconds
from deeplab_jax.benchmark.start import run_python
from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.data.images import read_image
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.engines import load_file
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export
from deeplab_jax.files import as_path, check_output_file
from deeplab_jax.inference import Predictor, load
from deeplab_jax.inference.padding import padded_size
from deeplab_jax.reporter import LoggingReporter
from experiments import measured

PACKAGES = ("jax", "onnxruntime", "ai-edge-litert", "opencv-python-headless")
NODE_SCRIPT = pathlib.Path(__file__).parents[1] / "tests" / "export" / "run_in_node.cjs"
# Number of calibration images.
MAX_CALIBRATION = 100
# Exported files by the name of their row: format, dtype, and whether the file is calibrated.
FILES = {
    "ONNX Runtime": ("onnx", "float32", False),
    "ONNX Runtime, float16": ("onnx", "float16", False),
    "LiteRT": ("tflite", "float32", False),
    "LiteRT, float16": ("tflite", "float16", False),
    "LiteRT, 8-bit integers": ("tflite", "float32", True),
    "Core ML, not run": ("coreml", "float32", False),
    "Core ML, float16, not run": ("coreml", "float16", False),
}
# Names of the rows of the ONNX file in runtimes other than ONNX Runtime.
OPENCV, WEB = "OpenCV dnn", "onnxruntime-web, one thread"
SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}


def photographs(size: tuple[int, int]) -> list[np.ndarray]:
    """Returns three photographs, uint8 [h, w, 3], downsampled to at most `size` = (H, W) pixels."""
    from skimage import data

    return [fitted(image, size) for image in (data.astronaut(), data.chelsea(), data.coffee())]


def export_files(
    predictor: Predictor, size: tuple[int, int], calibration: Sequence[np.ndarray], folder: Any
) -> dict[str, pathlib.Path]:
    """Exports a network to ONNX, TFLite and Core ML in float32 and float16, and to 8-bit TFLite.

    Args:
      predictor: predictor of the network to export.
      size: (H, W) of the images in pixels.
      calibration: images uint8 [H, W, 3] for the 8-bit file; empty: this file is omitted.
      folder: directory of the files.

    Returns:
      Paths of the files. The keys are row names of the table, such as `LiteRT, float16`.
    """
    paths = {}
    for row, (format, dtype, calibrated) in FILES.items():
        if calibrated and not calibration:
            continue
        path = folder / f"{len(paths)}{SUFFIXES[format]}"
        options = ExportOptions(size=size, batch=1, dtype=dtype)
        export(predictor, path, format, options, calibration if calibrated else None)
        paths[row] = path
    return paths


def measure_opencv(path: str, images: str, classes: str, repetitions: int) -> dict[str, Any]:
    """Runs an ONNX file with OpenCV in this process, and writes the class maps.

    Args:
      path: path of the ONNX file.
      images: path of a .npy file with images, uint8 [N, H, W, 3].
      classes: path of the .npy file to which the class maps, int32 [N, H, W], are written.
      repetitions: number of timed runs.

    Returns:
      Dictionary with the keys:

      * `seconds`: median time of one image.
      * `peak_bytes`: memory in bytes that loading and running the file adds to this process; None
        if the system does not report it.
    """
    import cv2

    pixels, before = np.load(images), process_memory(CURRENT)
    network = cv2.dnn.readNetFromONNX(path)

    def run(image: np.ndarray) -> np.ndarray:
        network.setInput(image[None])
        return network.forward()[0]

    np.save(classes, np.stack([run(image).copy() for image in pixels]))
    seconds = statistics.median(run_seconds(lambda: run(pixels[0]), repetitions))
    after = process_memory(LARGEST)
    peak = None if before is None or after is None else after - before
    return {"seconds": seconds, "peak_bytes": peak}


def run_elsewhere(
    row: str, path: pathlib.Path, images: np.ndarray, repetitions: int, web: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Runs an ONNX file in OpenCV or onnxruntime-web, in a separate process.

    Args:
      row: name of the runtime in the table: `OpenCV dnn` or `onnxruntime-web, one thread`.
      path: path of the ONNX file.
      images: images uint8 [N, H, W, 3] of the size that the file accepts.
      repetitions: number of timed runs.
      web: path of `node_modules` that contains the npm package onnxruntime-web.

    Returns:
      Class maps, int32 [N, H, W], and a dictionary with the keys:

      * `seconds`: median time of one image.
      * `peak_bytes`, only for OpenCV: memory in bytes that loading and running the file adds to the
        process.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if row == OPENCV:
            np.save(folder / "images.npy", images)
            places = [str(folder / "images.npy"), str(folder / "classes.npy")]
            given = json.dumps([str(path), *places, repetitions])
            found = json.loads(run_python(["-m", "experiments.runtimes", OPENCV], {}, input=given))
            return np.load(folder / "classes.npy"), found
        class_maps, times = [], []
        for image in images:
            image.tofile(folder / "image")
            words = ["node", NODE_SCRIPT, path, folder / "image", *image.shape[:2]]
            done = subprocess.run(
                [*map(str, words), str(folder / "classes"), str(repetitions)],
                env=os.environ | {"NODE_PATH": str(web)},
                capture_output=True,
                check=True,
            )
            class_maps.append(np.fromfile(folder / "classes", np.int32).reshape(image.shape[:2]))
            times.append(json.loads(done.stdout)["milliseconds"] / 1e3)
        return np.stack(class_maps), {"seconds": statistics.median(times)}


def agreement(expected: Sequence[np.ndarray], found: Iterable[np.ndarray]) -> float:
    """Returns the percentage of pixels with equal classes, over all images.

    Args:
      expected: class maps [H, W] of the images.
      found: class maps to compare; they may be padded at the bottom and the right.
    """
    pairs = [
        (own, other[: len(own), : own.shape[1]]) for own, other in zip(expected, found, strict=True)
    ]
    return 100 * sum(np.sum(own == other) for own, other in pairs) / sum(map(np.size, expected))


def measure_model(
    path: pathlib.Path, calibrate: pathlib.Path | None, repetitions: int, web: str | None
) -> Iterator[tuple[str, str, str, str]]:
    """Yields (row name, quantity, value, unit) for each measurement of the files of a model.

    Args:
      path: model directory.
      calibrate: folder of calibration images; None: no 8-bit file.
      repetitions: number of timed runs of each file.
      web: path of `node_modules` that contains onnxruntime-web; None: this runtime is not measured.
    """
    predictor = load(path)
    size = padded_size(predictor.model, predictor.inference_size or (513, 513))
    predictor = predictor.with_inference_size(size)
    architecture, images = predictor.model.architecture, photographs(size)
    network = f"{architecture.backbone} × {architecture.depth_multiplier:g}"
    label = f"{network}, {size[0]} × {size[1]}"
    expected = [predictor(image) for image in images]
    padded = np.stack([pad(image, size, architecture.mean_pixel) for image in images])
    calibration = []
    if calibrate is not None:
        calibration = [read_image(file) for file in sorted(calibrate.iterdir())[:MAX_CALIBRATION]]
    with tempfile.TemporaryDirectory() as name:
        files = export_files(predictor, size, calibration, pathlib.Path(name))
        run = {row: file for row, file in files.items() if "not run" not in row}
        figures = measure_models(
            {"JAX": path, **run}, size, repetitions=repetitions, reporter=LoggingReporter()
        )
        found = {row: map(load_file(file), images) for row, file in run.items()}
        found["JAX"] = iter(expected)
        files |= dict.fromkeys((OPENCV, WEB) if web else (OPENCV,), files["ONNX Runtime"])
        for row in set(files) & {OPENCV, WEB}:
            found[row], figures[row] = run_elsewhere(row, files[row], padded, repetitions, web)
        # Rows of files that are not run come last.
        ordered = sorted({"JAX": path, **files}.items(), key=lambda item: "not run" in item[0])
        for row, file in ordered:
            where = f"{label}: {row}"
            if row in figures:
                yield where, "equal classes", f"{agreement(expected, found[row]):.3f}", "%"
                yield where, "latency", f"{1e3 * figures[row]['seconds']:.1f}", "ms"
                if peak := figures[row].get("peak_bytes"):
                    yield where, "memory", f"{peak / 1e6:.0f}", "MB"
            yield where, "size on disk", f"{total_bytes([file]) / 1e6:.1f}", "MB"


def main(words: Sequence[str]) -> int:
    """Measures all models, writes the results as CSV and returns the exit status."""
    parser = argparse.ArgumentParser(
        "experiments.runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", required=True, help="model directories, comma-separated")
    parser.add_argument(
        "--calibrate", help="folder of calibration images (default: no 8-bit file is written)"
    )
    parser.add_argument(
        "--web", help="path of node_modules with onnxruntime-web (default: not measured)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=20, help="number of timed runs of each file"
    )
    parser.add_argument(
        "--output", default=str(measured.MEASURED / "runtimes.csv"), help="path of the CSV file"
    )
    flags = parser.parse_args(words)
    # Directories are removed, because they belong to this machine.
    command = f"python -m experiments.runtimes {re.sub(r'[^=, ]*/', '', ' '.join(words))}"
    origin = command, *measured.origin(measured.processor(PACKAGES)).values()
    calibrate = as_path(flags.calibrate) if flags.calibrate else None
    web = str(as_path(flags.web)) if flags.web else None
    rows, output = [], as_path(flags.output)
    try:
        # The measurements take long, so their results must not be lost.
        check_output_file(output)
        for model in flags.models.split(","):
            for entry in measure_model(as_path(model), calibrate, flags.repetitions, web):
                print(*entry, flush=True)
                rows.append((*entry, *origin))
    except DeepLabError as error:
        print(error, file=sys.stderr)
        return 2
    measured.write(output, rows)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == [OPENCV]:
        json.dump(measure_opencv(*json.load(sys.stdin)), sys.stdout)
        sys.exit()
    sys.exit(main(sys.argv[1:]))
