"""usage: deeplab-jax demo --workdir=DIR

The main job on built-in data: draws the `shapes` data set, trains a small DeepLab v3+ on it,
evaluates it on held-out images and writes pictures. About 6 minutes on two CPU cores. Started again
in the same workdir it goes on where it was interrupted.

example:
  deeplab-jax demo --workdir=runs/demo
"""

import functools
import pathlib

import deeplab_jax
from deeplab_jax import data, loading
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, refuse_arguments, required

DATASET = "shapes"
CONFIG = "shapes:cpu"


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define("workdir", None, "Directory of data set, run and results.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prepares, trains, evaluates and says where the results are."""
    refuse_arguments("demo", paths)
    required(flags, "workdir")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax import config as configs
    from deeplab_jax.data.builders.registry import BUILDERS
    from deeplab_jax.data.preparation import prepare
    from deeplab_jax.evaluation import table

    workdir = pathlib.Path(flags.workdir)
    data_dir = workdir / "data"
    if not (data_dir / DATASET).exists():
        builder = functools.partial(BUILDERS[DATASET], data_dir=data_dir, reporter=console)
        prepare(builder, reporter=console)
    config = configs.load(CONFIG)
    config.data.data_dir = str(data_dir)
    deeplab_jax.train(config, workdir, reporter=console)
    split = data.open_dataset(DATASET, data_dir, config.data.validation_split)
    output = workdir / "evaluation"
    metrics = deeplab_jax.evaluate(loading.load(workdir), split, output=output, reporter=console)
    console.print(table(metrics))
    console.print(
        f"numbers: {output / 'metrics.json'}\n"
        f"pictures: {output / 'contact_sheet.png'}, {output / 'confusion_matrix.png'}, "
        f"{workdir / 'curves.png'}"
    )
