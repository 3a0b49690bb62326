"""usage: deeplab-jax benchmark NAME [--flag=value …]

inference  latency and peak memory of a forward pass in JAX, and of a prediction (pixels to class
           maps) with each of the engines jax, onnx (ONNX Runtime) and tflite (LiteRT)
training   time and peak memory of a training step
pipeline   throughput of the input pipeline, in total and per core, and the number of cores required
           to supply an accelerator
scaling    time of a forward pass by image size, batch size and output stride, with a plot
start      time of `--help`, `models` and `inspect`, of four commands with wrong arguments, and of
           `predict` on one image with a warm and with a cold compile cache
compile    time to the first training step, with a cold and with a warm compile cache
shapes     mean IoU of three models on the built-in `shapes` dataset: DeepLab v3+, the same network
           at output stride 32 without a decoder, and a per-pixel classifier (10 minutes on two
           cores)
crf        time of the dense CRF on one image, in total and per step, and time of pydensecrf on the
           same image

examples:
  deeplab-jax benchmark inference --network=deeplab_v3/resnet_50 --size=513x513
  deeplab-jax benchmark training --network=deeplab_v3plus/resnet_101 --batch_size=4
  deeplab-jax benchmark pipeline --dataset=voc_segmentation --data_dir=data
  deeplab-jax benchmark scaling --network=deeplab_v3plus/mobilenet_v2 --output=scaling
  deeplab-jax benchmark compile --network=deeplab_v3/resnet_101 --crop=129x129 --batch_size=2
  deeplab-jax benchmark shapes --data_dir=runs/demo/data --workdir=runs/shapes_task
  deeplab-jax benchmark crf --image=photo.jpg --num_classes=21 --crf=deeplab_largefov
"""

import dataclasses
import functools
import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from deeplab_jax import loading
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_size
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.files import ENGINES, as_path, check_output_directory

NETWORK = "deeplab_v3plus/mobilenet_v2"
# Default batch size of training steps: batch normalization after image pooling requires more than
# one image.
TRAINING_BATCH = 4
# Flags of each benchmark, in addition to --json.
OPTIONS = {
    "inference": ("network", "size", "batch_size", "dtype", "engines", "repetitions"),
    "training": ("network", "size", "batch_size", "dtype", "repetitions"),
    "pipeline": ("dataset", "data_dir", "crop", "consumes", "num_images", "workers"),
    "scaling": ("network", "sizes", "batch_sizes", "output_strides", "output", "repetitions"),
    "start": ("repetitions",),
    "compile": ("network", "crop", "batch_size", "dtype"),
    "shapes": ("data_dir", "workdir"),
    "crf": ("image", "crf", "num_classes", "repetitions"),
}


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define(
        "network",
        NETWORK,
        "Network to measure, as ARCHITECTURE or ARCHITECTURE/BACKBONE. Used by the benchmarks "
        "inference, training, scaling and compile.",
    )
    flags.define(
        "size",
        "513x513",
        "Only for `benchmark inference` and `benchmark training`: height x width of the images, in "
        "pixels.",
    )
    flags.define(
        "batch_size",
        int,
        "Number of images per batch. Used by the benchmarks inference, training and compile, which "
        "run on one device. Training with image pooling requires at least 2 (default: 1 for "
        f"inference, {TRAINING_BATCH} for training and compile).",
        least=1,
    )
    flags.define(
        "dtype",
        "float32",
        "Data type of the computation, float32 or bfloat16. Used by the benchmarks inference, "
        "training and compile.",
    )
    flags.define(
        "engines",
        ["jax", "onnx", "tflite"],
        "Only for `benchmark inference` with --dtype=float32: engines to measure, separated by "
        "commas. With an empty value, no engine is measured. On TPUs, jax is not measured.",
    )
    flags.define(
        "repetitions", 5, "Number of timed runs. The median of their times is printed.", least=1
    )
    flags.define("json", False, "Print JSON instead of text.")
    _define_pipeline_flags(flags)
    _define_scaling_flags(flags)
    _define_shapes_and_crf_flags(flags)


def _define_pipeline_flags(flags: Flags) -> None:
    """Defines the flags of `benchmark pipeline`; other benchmarks also use data_dir and crop."""
    flags.define("dataset", None, "Only for `benchmark pipeline`: name of a prepared dataset.")
    flags.define(
        "data_dir",
        None,
        "Only for `benchmark pipeline` and `benchmark shapes`: directory of the prepared datasets.",
    )
    flags.define(
        "crop",
        "513x513",
        "Only for `benchmark pipeline` and `benchmark compile`: height x width of the crops, in "
        "pixels.",
    )
    flags.define(
        "consumes",
        600.0,
        "Only for `benchmark pipeline`: training throughput of an accelerator, in images per "
        "second. The benchmark prints the number of cores that the pipeline requires to reach it.",
    )
    flags.define(
        "num_images",
        400,
        "Only for `benchmark pipeline`: number of images per measurement.",
        least=1,
    )
    flags.define(
        "workers",
        0,
        "Only for `benchmark pipeline`: number of data-loading processes. With 0, threads of "
        "this process load the data.",
        least=0,
    )


def _define_scaling_flags(flags: Flags) -> None:
    """Defines the flags of `benchmark scaling`."""
    flags.define(
        "sizes",
        ["513x513", "257x257", "1025x1025", "2049x2049"],
        "Only for `benchmark scaling`: image sizes as height x width in pixels, separated by "
        "commas. All sizes are timed with the first batch size of --batch_sizes.",
    )
    flags.define(
        "batch_sizes",
        "1,2,4,8",
        "Only for `benchmark scaling`: batch sizes, separated by commas. All batch sizes are timed "
        "with the first image size of --sizes.",
    )
    flags.define(
        "output_strides",
        "32,16,8",
        "Only for `benchmark scaling`: output strides of the network, separated by commas.",
    )
    flags.define(
        "output",
        None,
        "Only for `benchmark scaling`: directory to which a CSV file and a plot are written.",
    )


def _define_shapes_and_crf_flags(flags: Flags) -> None:
    """Defines the flags of `benchmark shapes` and of `benchmark crf`."""
    flags.define(
        "workdir",
        None,
        "Only for `benchmark shapes`: directory for the workdirs of two training runs.",
    )
    flags.define(
        "image", None, "Only for `benchmark crf`: image file (default: a synthetic image)."
    )
    flags.define(
        "crf", "deeplab_largefov", "Only for `benchmark crf`: name of published CRF parameters."
    )
    flags.define(
        "num_classes", 21, "Only for `benchmark crf`: number of classes of the logits.", least=2
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Runs one benchmark and prints its results."""
    if len(paths) != 1:
        raise DeepLabError(f"give the name of one benchmark; legal: {', '.join(BENCHMARKS)}")
    check_name("benchmark", paths[0], BENCHMARKS)
    _check_flags(flags, paths[0])
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.benchmark.machine import describe_machine

    figures = BENCHMARKS[paths[0]](flags, console)
    if flags.json:
        console.print(json.dumps(figures | {"machine": describe_machine()}, indent=2))
        return
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' '):<34}{_text(value)}")


def _check_flags(flags: Flags, name: str) -> None:
    """Checks that all given flags apply to the benchmark `name`.

    Raises:
      DeepLabError: a flag belongs to other benchmarks only.
    """
    others = {flag for options in OPTIONS.values() for flag in options} - set(OPTIONS[name])
    for flag in sorted(others):
        if not flags[flag].using_default_value:
            legal = ", ".join(f"--{legal}" for legal in (*OPTIONS[name], "json"))
            raise DeepLabError(
                f"--{flag} does not apply to benchmark {name}; flags for benchmark {name}: {legal}"
            )


def _text(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:>10.3f}" if abs(value) < 1e6 else f"{value:>10.3e}"
    if isinstance(value, list):
        return " to ".join(_text(item).strip() for item in value)
    return "unknown" if value is None else str(value)


def _timed(flags: Flags, console: Console, training: bool) -> dict[str, object]:
    for engine in flags.engines:
        check_name("engine", engine, ENGINES)
    import jax

    from deeplab_jax.benchmark.machine import measure_peaks
    from deeplab_jax.benchmark.networks import measure_network

    console.message(f"timing {flags.repetitions} runs of {flags.network}")
    figures = measure_network(
        flags.network,
        parse_size(flags.size),
        flags.batch_size or (TRAINING_BATCH if training else 1),
        flags.dtype,
        training=training,
        repetitions=flags.repetitions,
    )
    figures |= measure_peaks(flags.dtype)
    engines = [] if training or flags.dtype != "float32" else flags.engines
    if "jax" in engines and jax.default_backend() == "tpu":
        # This process uses the TPU, so the process that measures the engine could not use it.
        console.warning(
            "the engine jax is not measured: it requires a separate process, but only one process "
            "at a time can use a TPU; the forward pass in JAX is still measured, in this process"
        )
        engines = [engine for engine in engines if engine != "jax"]
    return figures | _engines(flags, engines, console) if engines else figures


def _engines(flags: Flags, engines: list[str], console: Console) -> dict[str, object]:
    from deeplab_jax.benchmark.engines import measure_models, write_random_model
    from deeplab_jax.export.program import ExportOptions
    from deeplab_jax.export.runtimes import export

    size, batch_size = parse_size(flags.size), flags.batch_size or 1
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_random_model(folder / "model", flags.network, size)
        predictor, models = loading.load(folder / "model"), {}
        for engine in engines:
            models[engine] = folder / ("model" if engine == "jax" else f"network.{engine}")
            if engine == "jax":
                continue
            console.message(f"exporting {flags.network} to {engine}")
            options = ExportOptions(size=size, batch=batch_size)
            try:
                export(predictor, models[engine], engine, options)
            except DeepLabError as error:
                # The packages are not installed, or the engine does not support the network.
                console.warning(f"the engine {engine} is not measured: {error}")
                del models[engine]
        rows = measure_models(
            models, size, batch_size, repetitions=flags.repetitions, reporter=console
        )
    if flags.json:
        return {"engines": rows}
    console.print("engine     latency, s   images/s   memory, MB   on disk, MB   start, s")
    for name, row in rows.items():
        peak = row["peak_bytes"]
        memory = "unknown" if peak is None else f"{peak / 1e6:.0f}"
        console.print(
            f"{name:<10}{row['seconds']:>11.4f}{row['images_per_second']:>11.2f}{memory:>13}"
            f"{row['file_bytes'] / 1e6:>14.1f}{row['start_seconds']:>11.2f}"
        )
    return {}


def _pipeline(flags: Flags, console: Console) -> dict[str, object]:
    flags.require("dataset", "data_dir")
    from deeplab_jax.benchmark import pipeline
    from deeplab_jax.data import Augmentation, open_dataset
    from deeplab_jax.data.crops import MEAN_PIXEL

    dataset = open_dataset(flags.dataset, flags.data_dir, "train")
    fill = MEAN_PIXEL[:1] * dataset.descriptor.bands.count
    augmentation = Augmentation(parse_size(flags.crop), fill=fill)
    figures = pipeline.measure_pipeline(
        dataset, augmentation, num_images=flags.num_images, workers=flags.workers
    )
    per_core = figures["images_per_second_per_core"]
    return figures | {
        "accelerator_images_per_second": flags.consumes,
        "cores_to_feed_it": pipeline.cores_to_feed(flags.consumes, per_core),
    }


def _scaling(flags: Flags, console: Console) -> dict[str, object]:
    sizes = [parse_size(text) for text in flags.sizes]
    names = ("batch_sizes", "output_strides")
    counts = [flags.numbers(name, int, str(flags[name].default), least=1) for name in names]
    if flags.output:
        # The measurements take long, so their results must not be lost.
        check_output_directory(as_path(flags.output))
    from deeplab_jax.benchmark import scaling

    network = flags.network
    points = scaling.measure_scaling(
        network, sizes, *counts, repetitions=flags.repetitions, reporter=console
    )
    if flags.output:
        folder = as_path(flags.output)
        scaling.write_csv(folder / "scaling.csv", points)
        scaling.write_plot(folder / "scaling.png", points, f"{network}, forward pass")
    exponents = scaling.exponents(points)
    if flags.json:
        return {
            "network": network,
            "points": [dataclasses.asdict(point) for point in points],
            "exponents": exponents,
        }
    for line in scaling.table(points):
        console.print(line)
    return {f"exponent at output stride {stride}": b for stride, b in exponents.items()}


def _start(flags: Flags, console: Console) -> dict[str, float]:
    from deeplab_jax.benchmark.start import measure_commands

    return measure_commands(flags.repetitions, console)


def _compile(flags: Flags, console: Console) -> dict[str, float]:
    from deeplab_jax.benchmark.start import measure_start

    network = flags.network
    console.message(f"timing two processes with {network}, one after the other")
    batch_size = flags.batch_size or TRAINING_BATCH
    return measure_start(network, parse_size(flags.crop), batch_size, flags.dtype)


def _shapes(flags: Flags, console: Console) -> dict[str, float]:
    flags.require("data_dir", "workdir")
    from deeplab_jax.benchmark.shapes_task import network_mean_iou, per_pixel_mean_iou
    from deeplab_jax.data import open_dataset

    workdir, data_dir = as_path(flags.workdir), as_path(flags.data_dir)
    check_output_directory(workdir)
    splits = [open_dataset("shapes", data_dir, split) for split in ("train", "val")]
    return {
        "per_pixel_mean_iou": per_pixel_mean_iou(*splits),
        "deeplab_v3plus_mean_iou": network_mean_iou(workdir / "v3plus", data_dir, console),
        "stride_32_no_decoder_mean_iou": network_mean_iou(
            workdir / "stride_32", data_dir, console, output_stride=32, decoder="none"
        ),
    }


def _crf(flags: Flags, console: Console) -> dict[str, float]:
    from deeplab_jax.benchmark.crf import made_image, made_logits, measure_crf
    from deeplab_jax.crf import crf_parameters
    from deeplab_jax.data.images import read_image

    parameters = crf_parameters(flags.crf)
    image = read_image(as_path(flags.image)) if flags.image else made_image()
    height, width = image.shape[:2]
    console.message(
        f"timing {height}x{width} pixels (height x width) with {flags.num_classes} classes"
    )
    logits = made_logits(image.shape[:2], flags.num_classes)
    return measure_crf(image, logits, parameters, repetitions=flags.repetitions)


BENCHMARKS: dict[str, Callable[[Flags, Console], dict[str, Any]]] = {
    "inference": functools.partial(_timed, training=False),
    "training": functools.partial(_timed, training=True),
    "pipeline": _pipeline,
    "scaling": _scaling,
    "start": _start,
    "compile": _compile,
    "shapes": _shapes,
    "crf": _crf,
}
