"""usage: deeplab-jax train --config=FILE[:key=value,…] --workdir=DIR [--config.FIELD=VALUE …]

Trains a model, or goes on with an interrupted run: the same command in the same workdir takes up
the newest checkpoint. FILE is a path or the name of a packaged config (shapes, camvid, voc).

Several processes train together: on TPU pods, SLURM and GKE they find each other; elsewhere each is
given --coordinator=HOST:PORT --num_processes=N --process_id=0…N-1.

With --folds=5 the training split is divided in five: five networks are trained, each validated on
the fifth that it does not see, and the mean and the spread of their numbers are told.

examples:
  deeplab-jax train --config=configs/camvid.py:cpu --workdir=runs/camvid --config.seed=1
  deeplab-jax train --config=configs/shapes.py:cpu --workdir=runs/folds --folds=3
"""

from absl import flags as absl_flags
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import define_host_flags, joined_job
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Declares the flags of the command."""
    text = {"flag_values": flags}
    absl_flags.DEFINE_string("config", None, "Config file or name, with :arguments.", **text)
    absl_flags.DEFINE_string("workdir", None, "Where the run writes.", **text)
    absl_flags.DEFINE_multi_string(
        "override", [], "FIELD=VALUE; --config.FIELD=VALUE says the same.", **text
    )
    absl_flags.DEFINE_integer(
        "folds", None, "Cross-validate on so many folds.", lower_bound=2, **text
    )
    absl_flags.DEFINE_bool("profile", False, "Write a trace of a few steps.", **text)
    define_host_flags(flags)


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
    if flags.folds and flags.profile:
        raise DeepLabError("--profile is of a single run; leave --folds out")
    with joined_job(flags, console) as reporter:
        line = _train(flags, config, reporter)
    if reporter is console:
        console.print(line)


def _train(flags: absl_flags.FlagValues, config: ConfigDict, reporter: Reporter) -> str:
    """Trains and returns what to say of it."""
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.training import cross_validate, train

    if flags.folds:
        found = cross_validate(config, flags.workdir, flags.folds, reporter=reporter)
        return (
            f"mean IoU {found.mean:.4f} ± {found.standard_deviation:.4f} (standard deviation) over "
            f"{flags.folds} folds; they are in {found.workdir}"
        )
    result = train(config, flags.workdir, reporter=reporter, profile=flags.profile)
    return (
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"numbers and pictures are in {result.workdir}"
    )
