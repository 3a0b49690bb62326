"""usage: deeplab-jax train --config=FILE[:key=value,…] --workdir=DIR [--config.FIELD=VALUE …]

Trains a model. To resume an interrupted run, repeat the command with the same workdir. The command
then restores the newest checkpoint. FILE is a path or the name of a packaged config, such as
shapes, camvid or voc.

Several processes can train together. On TPU pods, SLURM and GKE, the processes are detected.
Elsewhere, start each process with --coordinator=HOST:PORT --num_processes=N --process_id=0…N-1.

With --folds=5, the command runs a five-fold cross-validation on the training split. It trains five
networks, each on four folds, evaluates every network on its remaining fold, and prints the mean and
the standard deviation of the five mean IoUs.

With --preview=FILE.png, the command writes a picture of the first training batch after all
augmentation, and does not train.

examples:
  deeplab-jax train --config=camvid:cpu --preview=batch.png --config.augmentation.cutmix=0.5
  deeplab-jax train --config=configs/camvid.py:cpu --workdir=runs/camvid --config.seed=1
  deeplab-jax train --config=configs/shapes.py:cpu --workdir=runs/folds --folds=3
"""

import os
import pathlib
from typing import TYPE_CHECKING

import deeplab_jax
from deeplab_jax import data
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.cli.job import define_hosts, joined_job
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.reporter import Reporter

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define_config()
    flags.define("workdir", None, "Directory for checkpoints, metrics and pictures of the run.")
    flags.define("folds", int, "Number of folds of a cross-validation.", least=2)
    flags.define("profile", False, "Write a profiler trace of a few steps to WORKDIR/profile.")
    flags.define(
        "preview",
        None,
        "PNG file to which a picture of the first training batch is written. The command then "
        "does not train.",
    )
    flags.define(
        "xla_options",
        None,
        "Platform whose recommended compiler options are set and printed: tpu for one TPU slice, "
        "tpu_slices for several slices, gpu for one GPU node, gpu_nodes for several nodes "
        "(default: no options are set).",
        choices=["tpu", "tpu_slices", "gpu", "gpu_nodes"],
    )
    define_hosts(flags)


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Trains a model, or writes a preview, and prints the results and their path."""
    flags.refuse("train", paths)
    if not flags.config or not (flags.workdir or flags.preview):
        raise DeepLabError("give --config=FILE and --workdir=DIR to train")
    if flags.preview and (flags.folds or flags.profile or flags.workdir):
        raise DeepLabError(
            "--preview cannot be combined with --workdir, --folds or --profile, because it does "
            "not train; omit these flags"
        )
    config = flags.read_config()
    if flags.folds and flags.profile:
        raise DeepLabError(
            "--profile cannot be combined with --folds, which starts several training runs; omit "
            "one of them"
        )
    data.prepared_directory(config.data.name, config.data.data_dir, console)
    if flags.preview:
        console.print(_preview(as_path(flags.preview), config, console))
        return
    if flags.xla_options:
        from deeplab_jax.parallel.chips import set_xla_options

        console.message(set_xla_options(flags.xla_options, os.environ))
    with joined_job(flags, console) as reporter:
        line = _train(flags, config, reporter)
    if reporter is console:
        console.print(line)


def _preview(path: pathlib.Path, config: "ConfigDict", reporter: Reporter) -> str:
    """Writes a picture of the first training batch to `path`, and returns the line to print."""
    from deeplab_jax.parallel import make_mesh
    from deeplab_jax.training.hooks import draw_first_batch
    from deeplab_jax.training.setup import assemble

    if path.suffix.lower() != ".png":
        raise DeepLabError(f"--preview={path} must end in .png")
    mesh = make_mesh(data=config.parallel.data, spatial=config.parallel.spatial)
    draw_first_batch(assemble(config, None, mesh, None, None, reporter=reporter), path)
    return f"the first training batch is in {path}"


def _train(flags: Flags, config: "ConfigDict", reporter: Reporter) -> str:
    """Trains a model, or several with --folds, and returns the line to print about the results."""
    # Imported here so that --help and wrong flags do not wait for JAX.
    from deeplab_jax.training.goodput import process_start

    if flags.folds:
        found = deeplab_jax.cross_validate(config, flags.workdir, flags.folds, reporter=reporter)
        return (
            f"mean IoU {found.mean:.4f} ± {found.standard_deviation:.4f} (standard deviation) over "
            f"{flags.folds} folds; results are in {found.workdir}"
        )
    result = deeplab_jax.train(
        config, flags.workdir, reporter=reporter, profile=flags.profile, started=process_start()
    )
    return (
        f"mean IoU {result.mean_iou:.4f} after {result.step} steps; "
        f"metrics and pictures are in {result.workdir}"
    )
