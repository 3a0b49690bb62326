"""usage: deeplab-jax distill --model=TEACHER --config=FILE --output=DIR [--flag=value …]

Trains the network of a config on its labels and on what a larger one, the teacher, says of every
pixel: to the config's loss comes --weight times the squared temperature times the divergence of
the two networks' probabilities, softened by --temperature. Teacher and data set must have the same
classes. DIR becomes the workdir of the training; the same command goes on where it was interrupted.

examples:
  deeplab-jax distill --model=runs/camvid_large --config=camvid:cpu --output=runs/camvid_taught \\
      --temperature=2 --config.training.num_steps=600
"""

from functools import partial

import deeplab_jax
from deeplab_jax import checkpointing, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    Flags,
    define_config_flags,
    define_model_flags,
    read_config,
    refuse_arguments,
    required,
)


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    define_model_flags(flags)
    define_config_flags(flags)
    flags.define("output", None, "Workdir of the training.")
    flags.define("weight", 1.0, "Weight of the teacher's loss.")
    flags.define("temperature", 2.0, "Divisor of both networks' logits.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Trains and says where the results are."""
    refuse_arguments("distill", paths, "the teacher goes by --model")
    required(flags, "model", "config", "output")
    config = read_config(flags)
    source = pretrained.locate(flags.model, console)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.compression.fine_tuning import distilled

    teacher = checkpointing.read_model(source, flags.checkpoint, flags.ema)
    adjust = partial(distilled, teacher=teacher, weight=flags.weight, temperature=flags.temperature)
    result = deeplab_jax.train(config, flags.output, reporter=console, adjust=adjust)
    console.print(
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"numbers and pictures are in {result.workdir}"
    )
