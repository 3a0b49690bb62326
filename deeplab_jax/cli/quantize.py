"""usage: deeplab-jax quantize --model=M --output=DIR --dataset=NAME --data_dir=DIR [--flag=value …]

Quantizes the convolutions of a model to 8-bit integers. Kernels become int8 with a scale per output
channel. Inputs become int8 with ranges that are calibrated on images. DIR is a model directory for
inference that has about a quarter of the original size; it cannot be trained further. The command
prints mean IoU, size and latency before and after quantization, and writes them to DIR/report.json.

On CPUs, the quantized model is not faster in JAX. For fast prediction on CPUs, export the float
model with `export --format=tflite --calibrate`, and run the exported file with `predict`.

If the accuracy drops too much, give --steps=N for quantization-aware fine-tuning. The fine-tuning
run uses the config of the model's workdir or --config=FILE, with overrides --config.FIELD=VALUE,
and writes to DIR-training. To resume an interrupted run, repeat the command.

examples:
  deeplab-jax quantize --model=deeplabv3_mobilenetv2_voc_coreml_lut8 --output=models/voc_int8 \\
      --dataset=voc_segmentation --data_dir=data
  deeplab-jax quantize --model=runs/camvid --output=models/camvid_int8 --dataset=camvid \\
      --data_dir=data --steps=200
"""

from deeplab_jax import data
from deeplab_jax.cli import compression
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, parse_size
from deeplab_jax.errors import DeepLabError


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    compression.define_compression_flags(flags)
    flags.define(
        "calibration_dataset", None, "Name of the calibration dataset (default: --dataset)."
    )
    flags.define("calibration_split", "train", "Split of the calibration dataset.")
    flags.define(
        "calibration_limit",
        32,
        "Number of calibration images, evenly spaced over the split.",
        least=1,
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Quantizes and evaluates a model; prints the report and the path of the new model."""
    source, stored, dataset = compression.open_sources(flags, "quantize", paths, console)
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.compression.calibration import calibration_images
    from deeplab_jax.compression.quantization import check_quantizable, quantization_aware, quantize

    check_quantizable(stored)
    name, split = flags.calibration_dataset or flags.dataset, flags.calibration_split
    calibrating = data.open_dataset(name, flags.data_dir, split)
    taken, found = stored.description.image_bands, calibrating.descriptor.bands
    if (taken.count, taken.dtype) != (found.count, found.dtype):
        raise DeepLabError(
            f"the model takes {taken}, but the images of {name} have {found}; give a "
            "--calibration_dataset with the bands of the model"
        )
    stored = compression.fine_tuned(flags, source, stored, quantization_aware, console)
    limit, size = flags.calibration_limit, parse_size(flags.size)
    images = calibration_images(calibrating, stored.model, limit=limit, size=size, reporter=console)
    count = min(limit, len(calibrating))
    made = quantize(stored, images, f"{count} images of {name}/{split}")
    compression.write_compressed(flags, source, "int8", made, dataset, console)
