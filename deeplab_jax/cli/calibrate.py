"""usage: deeplab-jax calibrate --model=M --output=DIR --dataset=NAME --data_dir=DIR [--flag=value]

Fits the temperature of a model, a number by which the logits are divided. The fitted temperature
maximizes the likelihood of the true classes on a dataset split. Choose a split that the model was
not trained on, and measure the effect on other images with `evaluate --calibration`. The command
writes the model directory DIR, which contains the same weights and the temperature. Every command
that computes probabilities with DIR applies the temperature. Class maps and mean IoU do not change.

The temperature is valid only for the inference strategy that --output_stride, --scales, --flip
and --tile select. Give the same flags when you predict or evaluate with DIR.

examples:
  deeplab-jax calibrate --model=runs/camvid --output=models/camvid --dataset=camvid \\
      --split='val[:50%]' --data_dir=data
  deeplab-jax evaluate --model=models/camvid --dataset=camvid --split='val[50%:]' \\
      --data_dir=data --calibration
"""

import dataclasses

from deeplab_jax import checkpointing, inference, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.files import as_path, check_new_directory


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define_inference()
    flags.define_dataset("val")
    flags.define("output", None, "Model directory to write. It must be empty or not exist yet.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Fits the temperature, writes the model, and prints the result."""
    flags.refuse("calibrate", paths, "give the model as --model")
    flags.require("model", "output", "dataset", "split", "data_dir")
    check_new_directory(as_path(flags.output))
    settings, options = flags.split_settings(), flags.inference_options()
    flags.check_sources()
    source, dataset = pretrained.locate(flags.model, console), flags.open_split()
    stored = checkpointing.read_model(source, flags.checkpoint, flags.ema)
    # Imported here so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.evaluation import fit_temperature

    predictor = inference.predictor_of(stored, flags.model)
    found = fit_temperature(predictor, dataset, options=options, reporter=console, **settings)
    description = dataclasses.replace(
        stored.description,
        temperature=found.temperature,
        source=stored.description.source | {"temperature": found._asdict()},
    )
    checkpointing.write_model(flags.output, description, stored.variables)
    console.print(
        f"temperature {found.temperature:.4f} on {found.num_images} images: negative "
        f"log-likelihood {found.before:.4f} → {found.after:.4f} nats"
    )
    console.message(f"the calibrated model is in {flags.output}")
