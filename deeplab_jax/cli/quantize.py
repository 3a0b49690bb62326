"""usage: deeplab-jax quantize --model=M --output=DIR --dataset=NAME --data_dir=DIR [--flag=value …]

Makes a model's convolutions compute in 8-bit integers: kernels int8 with a scale for every output
channel, inputs int8 in the range that they have on real images. DIR becomes a model directory that
every command takes, about a quarter of the size. Mean IoU, size and latency before and after are
printed and written to DIR/report.json.

Where that costs too much, --steps=N first trains the network on while it sees its own rounding, in
the recipe of its workdir or in --config=FILE, with --config.FIELD=VALUE on top. That run is in
DIR-training and goes on from there when it is interrupted.

examples:
  deeplab-jax quantize --model=deeplabv3_mobilenetv2_voc_coreml_lut8 --output=models/voc_int8 \\
      --dataset=voc_segmentation --data_dir=data
  deeplab-jax quantize --model=runs/camvid --output=models/camvid_int8 --dataset=camvid \\
      --data_dir=data --steps=200
"""

from pathlib import Path

from deeplab_jax import checkpointing, data
from deeplab_jax.cli.compression import (
    check_output,
    define_compression_flags,
    fine_tuning_config,
    measure_and_print,
    read_stored,
    training_directory,
)
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    Flags,
    check_sources,
    open_split,
    parse_size,
    refuse_arguments,
    required,
)


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    define_compression_flags(flags, steps=0)
    flags.define("calibration_dataset", None, "Calibration data set (default: --dataset).")
    flags.define("calibration_split", "train", "Split of the calibration data set.")
    flags.define(
        "calibration_limit",
        32,
        "Number of calibration images, evenly spaced over the split.",
        least=1,
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Quantises, measures and says where the model is."""
    refuse_arguments("quantize", paths, "the model goes by --model")
    required(flags, "model", "output", "dataset", "data_dir")
    check_output(flags)
    check_sources(flags)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.compression.calibration import calibration_images
    from deeplab_jax.compression.fine_tuning import fine_tune
    from deeplab_jax.compression.quantization import check_quantizable, quantization_aware, quantize

    source, stored = read_stored(flags, console)
    check_quantizable(stored)
    dataset = open_split(flags)
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
    told = f"{flags.calibration_limit} images of {name}/{flags.calibration_split}"
    made = quantize(trained, images, told)
    checkpointing.write_model(Path(flags.output), made.description, made.variables)
    measure_and_print(flags, {"before": source, "int8": Path(flags.output)}, dataset, console)
