"""Training on from a model that was changed, in the recipe that it came from or another."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax import model_store
from deeplab_jax.errors import DeepLabError
from deeplab_jax.model_store import StoredModel
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import train
from deeplab_jax.training.run import Run
from deeplab_jax.training.workdir import CONFIG_FILE

START = "start"
# Keywords of `create_model` that a training run takes from its data set.
FROM_DATA = ("num_classes", "in_channels")
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Architecture)}


def recipe_of(directory: Path) -> ConfigDict:
    """Returns the config that a workdir was trained with; of a model directory the default."""
    path = directory / CONFIG_FILE
    return configs.from_json(path.read_text()) if path.is_file() else configs.default()


def with_network(config: ConfigDict, description: model_store.ModelDescription) -> ConfigDict:
    """Returns the config with the network of a description.

    Raises:
      DeepLabError: training cannot have a network with these keywords.
    """
    changed = configs.from_json(configs.to_json(config))
    fresh = configs.default().model
    with changed.unlocked(), changed.ignore_type():
        changed.model = fresh
        changed.model.architecture = description.architecture
        for name, value in description.overrides.items():
            if name in fresh:
                changed.model[name] = _frozen(value)
            elif name not in FROM_DATA and value != DEFAULTS.get(name):
                raise DeepLabError(f"a network with {name}={value!r} cannot be trained")
    return changed


def fine_tune(
    stored: StoredModel,
    config: ConfigDict,
    workdir: Path,
    steps: int,
    reporter: Reporter,
    adjust: Callable[[Run], Run] = lambda run: run,
) -> StoredModel:
    """Returns the model after so many steps of training.

    The workdir holds the run, which goes on where it was interrupted, and what it started from.

    Args:
      stored: to start from.
      config: of the training; its network and start are the model's.
      workdir: where the run writes.
      steps: of training.
      reporter: hears of progress.
      adjust: see `train`.

    Raises:
      DeepLabError: as `train`; or the data set has other classes than the model.
    """
    start = workdir / START
    if not model_store.is_model(start):
        model_store.write_model(start, stored.description, stored.variables)
    config = with_network(config, stored.description)
    config.training.num_steps = steps
    config.training.init_from = str(start)
    config.training.init_parts = "all"
    num_classes = len(stored.description.class_names)

    def checked(run: Run) -> Run:
        if len(run.description.class_names) != num_classes:
            raise DeepLabError(
                f"the model has {num_classes} classes, {run.train.name} "
                f"{len(run.description.class_names)}; fine-tune on a data set of the same classes"
            )
        return adjust(run)

    result = train(config, workdir, reporter=reporter, adjust=checked)
    source = {
        name: value
        for name, value in stored.description.source.items()
        if name != "folded_batch_norm" or config.model.frozen_batch_norm
    }
    source["fine_tuned"] = {"steps": result.step, "on": config.data.name}
    description = dataclasses.replace(stored.description, source=source)
    variables = model_store.read_variables(workdir, "last")
    return StoredModel(description.create_model(), variables, description)


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
