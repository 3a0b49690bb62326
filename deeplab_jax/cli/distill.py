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

from absl import flags as absl_flags

from deeplab_jax import config as configs
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import define_model_flags, required
from deeplab_jax.errors import DeepLabError


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    define_model_flags(flags)
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("config", None, "Recipe of the student, with :arguments.", **own)
    absl_flags.DEFINE_string("output", None, "Workdir of the training.", **own)
    absl_flags.DEFINE_float("weight", 1.0, "Of the teacher's loss.", **own)
    absl_flags.DEFINE_float("temperature", 2.0, "Divides both networks' logits.", **own)
    absl_flags.DEFINE_multi_string(
        "override", [], "FIELD=VALUE; --config.FIELD=VALUE says the same.", **own
    )


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Trains and says where the results are."""
    if paths:
        raise DeepLabError(f"distill takes no argument {paths[0]!r}; the teacher goes by --model")
    required(flags, "model", "config", "output")
    config = configs.load(flags.config)
    for assignment in flags.override:
        field, _, value = assignment.partition("=")
        configs.override(config, field, value)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.checkpointing import read_model
    from deeplab_jax.compression.fine_tuning import distilled
    from deeplab_jax.pretrained import locate
    from deeplab_jax.training import train

    teacher = read_model(locate(flags.model, console), flags.checkpoint, flags.ema)
    adjust = partial(distilled, teacher=teacher, weight=flags.weight, temperature=flags.temperature)
    result = train(config, flags.output, reporter=console, adjust=adjust)
    console.print(
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"numbers and pictures are in {result.workdir}"
    )
