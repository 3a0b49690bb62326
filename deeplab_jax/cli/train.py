"""usage: deeplab-jax train --config=FILE[:key=value,…] --workdir=DIR [--config.FIELD=VALUE …]

Trains a model, or goes on with an interrupted run: the same command in the same workdir takes up
the newest checkpoint. FILE is a path or the name of a packaged config (shapes, camvid, voc).

example:
  deeplab-jax train --config=configs/camvid.py:cpu --workdir=runs/camvid --config.seed=1
"""

from absl import flags as absl_flags

from deeplab_jax import config as configs
from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Declares the flags of the command."""
    text = {"flag_values": flags}
    absl_flags.DEFINE_string("config", None, "Config file or name, with :arguments.", **text)
    absl_flags.DEFINE_string("workdir", None, "Where the run writes.", **text)
    absl_flags.DEFINE_multi_string(
        "override", [], "FIELD=VALUE; --config.FIELD=VALUE says the same.", **text
    )
    absl_flags.DEFINE_bool("profile", False, "Write a trace of a few steps.", **text)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Trains and says where the results are."""
    if paths:
        raise DeepLabError(f"train takes no argument {paths[0]!r}; see deeplab-jax train --help")
    if not flags.config or not flags.workdir:
        raise DeepLabError("train needs --config=FILE and --workdir=DIR")
    config = configs.load(flags.config)
    for assignment in flags.override:
        field, _, value = assignment.partition("=")
        configs.override(config, field, value)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.training import train

    result = train(config, flags.workdir, reporter=console, profile=flags.profile)
    console.print(
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"numbers and pictures are in {result.workdir}"
    )
