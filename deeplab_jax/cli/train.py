"""usage: deeplab-jax train --config=FILE[:key=value,…] --workdir=DIR [--config.FIELD=VALUE …]

Trains a model, or goes on with an interrupted run: the same command in the same workdir takes up
the newest checkpoint. FILE is a path or the name of a packaged config (shapes, camvid, voc).

Several processes train together: on TPU pods, SLURM and GKE they find each other; elsewhere each is
given --coordinator=HOST:PORT --num_processes=N --process_id=0…N-1.

With --folds=5 the training split is divided in five: five networks are trained, each validated on
the fifth that it does not see, and the mean and the spread of their numbers are printed.

examples:
  deeplab-jax train --config=configs/camvid.py:cpu --workdir=runs/camvid --config.seed=1
  deeplab-jax train --config=configs/shapes.py:cpu --workdir=runs/folds --folds=3
"""

from typing import TYPE_CHECKING

import deeplab_jax
from deeplab_jax import data
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import (
    Flags,
    define_config_flags,
    define_host_flags,
    joined_job,
    read_config,
    refuse_arguments,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    define_config_flags(flags)
    flags.define("workdir", None, "Directory that the run writes to.")
    flags.define("folds", None, "Number of folds of a cross-validation.", kind=int, least=2)
    flags.define("profile", False, "Write a trace of a few steps.")
    define_host_flags(flags)


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Trains and says where the results are."""
    refuse_arguments("train", paths)
    if not flags.config or not flags.workdir:
        raise DeepLabError("train needs --config=FILE and --workdir=DIR")
    config = read_config(flags)
    if flags.folds and flags.profile:
        raise DeepLabError("--profile is of a single run; leave --folds out")
    data.prepared_directory(config.data.name, config.data.data_dir)
    with joined_job(flags, console) as reporter:
        line = _train(flags, config, reporter)
    if reporter is console:
        console.print(line)


def _train(flags: Flags, config: "ConfigDict", reporter: Reporter) -> str:
    """Trains and returns what to say of it."""
    if flags.folds:
        found = deeplab_jax.cross_validate(config, flags.workdir, flags.folds, reporter=reporter)
        return (
            f"mean IoU {found.mean:.4f} ± {found.standard_deviation:.4f} (standard deviation) over "
            f"{flags.folds} folds; they are in {found.workdir}"
        )
    result = deeplab_jax.train(config, flags.workdir, reporter=reporter, profile=flags.profile)
    return (
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"numbers and pictures are in {result.workdir}"
    )
