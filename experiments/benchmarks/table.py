"""Tables of forward passes and training steps, compared with other codebases.

    python -m experiments.benchmarks.table KIND --directory=DIR [--repetitions=15] [--rows=TEXT]

KIND is forward or training. Each network is timed alternately with its baseline, in a new process.
Baselines in PyTorch are timed twice: eagerly, and under torch.compile. The results are stored in
DIR, and a repeated command measures only those that are missing. After each measurement, the table
is written to experiments/results/measured/forward.csv or training_step.csv, from which
docs/benchmarks.md is generated. No other program should run on the machine. --rows selects the rows
whose name contains the text.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from deeplab_jax.files import as_path, write_text
from experiments import measured
from experiments.benchmarks.baselines import BASELINES

REPETITIONS = 15
ODD, EVEN = "513x513", "512x512"
PROCESSES = {"eager": (), "compiled": ("--compiled",)}


class Row(NamedTuple):
    """Network to compare with a baseline.

    Attributes:
      name: name of the row.
      baseline, network: names of the baseline and of its network, see `baselines.BASELINES`.
      size: height x width of the images in pixels.
      batch_size: number of images.
    """

    name: str
    baseline: str
    network: str
    size: str
    batch_size: int = 1

    @property
    def modes(self) -> tuple[str, ...]:
        """`eager` and `compiled` for baselines in PyTorch; all others are compiled programs."""
        return tuple(PROCESSES) if BASELINES[self.baseline].pytorch else ("compiled",)


TORCHVISION, MODELS = "torchvision", "segmentation_models"
ROWS = {
    "forward": (
        Row("v3 ResNet-50, output stride 8", TORCHVISION, "deeplabv3_resnet50", ODD),
        Row("v3 MobileNetV3 large", TORCHVISION, "deeplabv3_mobilenet_v3_large", ODD),
        Row("v3 MobileNetV2, output stride 16", "transformers", "mobilenet_v2", ODD),
        Row("v3+ ResNet-50, output stride 16", MODELS, "resnet50", EVEN),
        Row("v3+ ConvNeXt-T, output stride 16", MODELS, "tu-convnext_tiny", EVEN),
        Row("v3+ EfficientNet-Lite0, output stride 16", MODELS, "tu-efficientnet_lite0", EVEN),
        Row("v3+ EfficientNetV2-S, output stride 16", MODELS, "tu-tf_efficientnetv2_s", EVEN),
        Row("v3 MobileNetV2, as published", "straightforward", "v3/mobilenet_v2", ODD),
        Row("v3+ MobileNetV2", "straightforward", "v3plus/mobilenet_v2", ODD),
        Row("v3+ Xception-65", "straightforward", "v3plus/xception_65", ODD),
        Row("v3 MobileNetV2 0.5, as published", "tflite", "mobilenet_v2", "257x257"),
        Row("v3+ ResNet-50, output stride 32", "keras_hub", "resnet_50", EVEN),
    ),
    "training": (
        Row("v3 ResNet-50, output stride 8", TORCHVISION, "deeplabv3_resnet50", "321x321", 2),
        Row("v3+ MobileNetV2", "straightforward", "v3plus/mobilenet_v2", "257x257", 4),
    ),
}
# Names of the files of measurements.
TABLES = {"forward": "forward", "training": "training_step"}
PACKAGES = ("jax", "torch", "torchvision", "segmentation_models_pytorch", "timm", "transformers")
PUBLISHED_AS = {
    "segmentation_models": "segmentation_models.pytorch",
    "straightforward": "plain Flax",
}


def command(kind: str, row: Row, mode: str, repetitions: int) -> list[str]:
    """Returns the command line that measures a row, without the Python interpreter."""
    flags = {"baseline": row.baseline, "network": row.network, "size": row.size}
    flags |= {"batch_size": row.batch_size, "repetitions": repetitions}
    words = [f"--{name}={value}" for name, value in flags.items()]
    if BASELINES[row.baseline].pytorch:
        words += PROCESSES[mode]
    return ["-m", "experiments.benchmarks", kind, *words]


def measure_row(words: Sequence[str]) -> dict[str, Any] | None:
    """Runs a measurement in a new process; returns None, and prints the reason, if it fails."""
    print(f"python {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def quantities(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yields (quantity, value, unit) of a row, from its results by mode."""
    first = next(iter(results.values()))
    yield "ours", f"{first['seconds']:.3f}", "s"
    for mode, found in results.items():
        low, high = found["interval"]
        yield mode, f"{found['baseline_seconds']:.3f}", "s"
        yield f"ours / {mode}", f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})", ""
    yield "our memory", f"{first['peak_bytes'] / 1e6:.0f}", "MB"
    for mode, found in results.items():
        if peak := found["baseline_peak_bytes"]:
            yield f"{mode}, memory", f"{peak / 1e6:.0f}", "MB"
    for side, name in (("", "our"), ("baseline_", "their")):
        if parameters := first[f"{side}parameters"]:
            yield f"{name} parameters", f"{parameters / 1e6:.2f}", "M"
    for side, name in (("", "our"), ("baseline_", "their")):
        if first["baseline_operations"]:
            yield f"{name} multiply-adds", f"{first[f'{side}operations'] / 2e9:.2f}", "G"


def write_table(kind: str, directory: pathlib.Path) -> None:
    """Writes the table of forward passes or of training steps from the results in a directory."""
    found = {row: _results(kind, row, directory) for row in ROWS[kind]}
    # Machines whose descriptions are equal may differ in this rate.
    rate = max(r["matrix_flops_per_second"] for modes in found.values() for r in modes.values())
    entries = []
    for row, results in found.items():
        if not results:
            continue
        label = f"{row.name}; {PUBLISHED_AS.get(row.baseline, row.baseline)}, {_shape(kind, row)}"
        origin = dict(next(iter(results.values()))["origin"])
        origin["hardware"] += f"; matrix products of JAX reach {rate / 1e9:.0f} GFLOP/s"
        shown = f"python -m experiments.benchmarks.table {kind} --directory=speed"
        entries += [(label, *each, shown, *origin.values()) for each in quantities(results)]
    measured.write(measured.MEASURED / f"{TABLES[kind]}.csv", entries)


def _results(kind: str, row: Row, directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the stored results of a row by mode."""
    stored = {mode: directory / file_name(kind, row, mode) for mode in row.modes}
    return {mode: json.loads(path.read_text()) for mode, path in stored.items() if path.exists()}


def _shape(kind: str, row: Row) -> str:
    batch = f"{row.batch_size} × " if kind == "training" else ""
    return batch + row.size.replace("x", " × ")


def file_name(kind: str, row: Row, mode: str) -> str:
    """Returns the name of the file for the result of a row."""
    return f"{kind}-{row.baseline}-{row.network.replace('/', '-')}-{mode}.json"


def main(words: Sequence[str]) -> int:
    """Measures the missing rows and writes the table; returns 1 if a measurement failed."""
    parser = argparse.ArgumentParser(
        "experiments.benchmarks.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=ROWS)
    parser.add_argument("--directory", type=as_path, required=True, help="directory of the results")
    parser.add_argument(
        "--repetitions",
        type=int,
        default=REPETITIONS,
        help="number of pairs of runs (default: %(default)s)",
    )
    parser.add_argument("--rows", default="", help="text in the names of the rows (default: all)")
    flags = parser.parse_args(words)
    flags.directory.mkdir(parents=True, exist_ok=True)
    failed = False
    for row in (row for row in ROWS[flags.kind] if flags.rows in row.name):
        for mode in row.modes:
            path = flags.directory / file_name(flags.kind, row, mode)
            if path.exists():
                continue
            found = measure_row(command(flags.kind, row, mode, flags.repetitions))
            failed |= found is None
            if found is not None:
                found["origin"] = measured.origin(measured.processor(installed()))
                write_text(path, json.dumps(found, indent=2))
                write_table(flags.kind, flags.directory)
    return int(failed)


def installed() -> list[str]:
    """Returns those of `PACKAGES` that are installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
