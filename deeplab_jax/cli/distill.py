"""usage: deeplab-jax distill --model=TEACHER --config=FILE --output=DIR [--flag=value …]

Trains the network of a config, the student, to imitate a larger network, the teacher. The
distillation loss is T²·KL(teacher ‖ student), where T is --temperature: the logits of both networks
are divided by T, and the resulting probabilities are compared. This loss is multiplied by --weight
and added to the loss of the config. Teacher and dataset must have the same classes. DIR is the
workdir of the training run. To resume an interrupted run, repeat the command.

examples:
  deeplab-jax distill --model=runs/camvid_large --config=camvid:cpu --output=runs/camvid_taught \\
      --temperature=2 --config.training.num_steps=600
"""

from functools import partial

import deeplab_jax
from deeplab_jax import checkpointing, pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_model()
    flags.define_config()
    flags.define("output", None, "Workdir of the training run.")
    flags.define("weight", 1.0, "Weight of the distillation loss, above 0.")
    flags.define(
        "temperature", 2.0, "Temperature: divisor of the logits of teacher and student, above 0."
    )


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Trains the student, and prints its mean IoU and the path of its workdir."""
    flags.refuse("distill", paths, "give the teacher as --model")
    flags.require("model", "config", "output")
    config = flags.read_config()
    source = pretrained.locate(flags.model, console)
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.compression.fine_tuning import distilled

    teacher = checkpointing.read_model(source, flags.checkpoint, flags.ema)
    adjust = partial(distilled, teacher=teacher, weight=flags.weight, temperature=flags.temperature)
    result = deeplab_jax.train(config, flags.output, reporter=console, adjust=adjust)
    console.print(
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"metrics and pictures are in {result.workdir}"
    )
