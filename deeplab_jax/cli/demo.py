"""usage: deeplab-jax demo --workdir=DIR

Generates the built-in `shapes` dataset, trains a small DeepLab v3+ on it, evaluates the model on
held-out images and writes pictures. This takes three to five minutes on two CPU cores. To resume an
interrupted run, repeat the command.

example:
  deeplab-jax demo --workdir=runs/demo
"""

import functools

import deeplab_jax
from deeplab_jax import data, loading
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, is_local

DATASET = "shapes"
CONFIG = "shapes:cpu"


def define_flags(flags: Flags) -> None:
    """Defines the flags of the command."""
    flags.define("workdir", None, "Directory for the dataset, checkpoints and results.")


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prepares the dataset, trains and evaluates a model, and prints the path of the results."""
    flags.refuse("demo", paths)
    flags.require("workdir")
    if not is_local(flags.workdir):
        raise DeepLabError(
            f"--workdir={flags.workdir}: the demo prepares its dataset on a local path only; give "
            "a local path"
        )
    # The import is local, so that --help and wrong flags do not wait for JAX.
    from deeplab_jax import config as configs
    from deeplab_jax.data.builders.registry import BUILDERS
    from deeplab_jax.data.preparation import prepare
    from deeplab_jax.evaluation import table

    workdir = as_path(flags.workdir)
    data_dir = workdir / "data"
    if DATASET not in data.prepared_names(data_dir):
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
        f"metrics: {output / 'metrics.json'}\n"
        f"pictures: {output / 'contact_sheet.png'}, {output / 'confusion_matrix.png'}, "
        f"{workdir / 'curves.png'}"
    )
