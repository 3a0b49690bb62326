"""usage: deeplab-jax quantize --model=M --output=DIR --dataset=NAME --data_dir=DIR [--flag=value …]

Quantizes the convolutions of a model to 8-bit integers: int8 kernels with a scale per output
channel and int8 inputs with ranges calibrated on images. DIR is a model directory of about a
quarter of the size that every command accepts. Prints mean IoU, size and latency before and
after, and writes them to DIR/report.json.

If accuracy drops too much, --steps=N runs quantization-aware fine-tuning first, with the config of
the model's workdir or --config=FILE and overrides --config.FIELD=VALUE. Its workdir is
DIR-training; the same command resumes an interrupted run.

examples:
  deeplab-jax quantize --model=deeplabv3_mobilenetv2_voc_coreml_lut8 --output=models/voc_int8 \\
      --dataset=voc_segmentation --data_dir=data
  deeplab-jax quantize --model=runs/camvid --output=models/camvid_int8 --dataset=camvid \\
      --data_dir=data --steps=200
"""

from pathlib import Path

from deeplab_jax import checkpointing, data
from deeplab_jax.cli.compression import (
    define_compression_flags,
    fine_tuning_config,
    measure_and_print,
    read_stored,
    training_directory,
)
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_size
from deeplab_jax.files import check_new_directory


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    define_compression_flags(flags, steps=0)
    flags.define(
        "calibration_dataset", None, "Name of the calibration data set (default: --dataset)."
    )
    flags.define("calibration_split", "train", "Split of the calibration data set.")
    flags.define(
        "calibration_limit",
        32,
        "Number of calibration images, evenly spaced over the split.",
        least=1,
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Quantizes and measures; prints the path of the model."""
    flags.refuse("quantize", paths, "give the model as --model")
    flags.require("model", "output", "dataset", "data_dir")
    check_new_directory(Path(flags.output))
    flags.check_sources()
    # Imported here so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.compression.calibration import calibration_images
    from deeplab_jax.compression.fine_tuning import fine_tune
    from deeplab_jax.compression.quantization import check_quantizable, quantization_aware, quantize

    source, stored = read_stored(flags, console)
    check_quantizable(stored)
    dataset = flags.open_split()
    name = flags.calibration_dataset or flags.dataset
    calibrating = data.open_dataset(name, flags.data_dir, flags.calibration_split)
    trained = stored
    if flags.steps:
        config = fine_tuning_config(flags, source, console)
        workdir = training_directory(flags)
        trained = fine_tune(stored, config, workdir, flags.steps, console, quantization_aware)
    images = calibration_images(
        calibrating,
        trained.model,
        limit=flags.calibration_limit,
        size=parse_size(flags.size),
        reporter=console,
    )
    source_text = f"{flags.calibration_limit} images of {name}/{flags.calibration_split}"
    made = quantize(trained, images, source_text)
    checkpointing.write_model(Path(flags.output), made.description, made.variables)
    measure_and_print(flags, {"before": source, "int8": Path(flags.output)}, dataset, console)
