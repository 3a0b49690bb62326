"""Fine-tuning of a changed model, by its own recipe or by a teacher's predictions."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from deeplab_jax import checkpointing, losses
from deeplab_jax import config as configs
from deeplab_jax.checkpointing import SEGMENTATION, StoredModel
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture, DeepLab
from deeplab_jax.models.architectures import frozen
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import train
from deeplab_jax.training.checkpoints import CONFIG_FILE
from deeplab_jax.training.loss import Outputs
from deeplab_jax.training.setup import Run

# Keywords of `create_model` that a training run takes from its dataset.
FROM_DATA = ("num_classes", "in_channels", "image_dtype")
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Architecture)}


def recipe_of(directory: Path) -> ConfigDict:
    """Returns the training config of a workdir, or the default one for a model directory."""
    path = directory / CONFIG_FILE
    return configs.from_json(path.read_text()) if path.is_file() else configs.default()


def with_network(config: ConfigDict, description: checkpointing.ModelDescription) -> ConfigDict:
    """Returns the config with the network of a description.

    Raises:
      DeepLabError: a network with these keywords cannot be trained.
    """
    changed = copy.deepcopy(config)
    fresh = configs.default().model
    with changed.unlocked(), changed.ignore_type():
        changed.model = fresh
        changed.model.architecture = description.architecture
        for name, value in description.overrides.items():
            if name in fresh:
                changed.model[name] = frozen(value)
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
    """Returns the model after fine-tuning.

    The workdir holds the run, which resumes after an interruption, and the initial model.

    Args:
      stored: initial model.
      config: training config; network and initialization are replaced by those of the model.
      workdir: directory of the run.
      steps: number of training steps.
      reporter: receives progress events.
      adjust: changes the run before it starts; see `train`.

    Raises:
      DeepLabError: as `train`; or the dataset has another number of classes than the model.
    """
    start = workdir / "start"
    if not checkpointing.is_model(start):
        checkpointing.write_model(start, stored.description, stored.variables)
    config = with_network(config, stored.description)
    config.training.num_steps = steps
    config.training.init_from = str(start)
    config.training.init_scope = "all"
    num_classes = len(stored.description.class_names)

    def checked(run: Run) -> Run:
        if len(run.description.class_names) != num_classes:
            raise DeepLabError(
                f"the model has {num_classes} classes, {run.train.name} has "
                f"{len(run.description.class_names)}; fine-tune on a dataset of the same classes"
            )
        return adjust(run)

    result = train(config, workdir, reporter=reporter, adjust=checked)
    fine_tuned = {"steps": result.step, "on": config.data.name}
    source = stored.description.source | {"fine_tuned": fine_tuned}
    if not config.model.frozen_batch_norm:
        source.pop("folded_batch_norm", None)
    return stored.changed(checkpointing.read_variables(workdir, "last"), source=source)


# Name of the endpoint that holds the teacher's logits.
TEACHER = "teacher"


def distilled(run: Run, teacher: StoredModel, weight: float, temperature: float) -> Run:
    """Returns the run with a distillation loss added to its own loss.

    The teacher receives the same crops, in evaluation mode.

    Args:
      run: training run of the student.
      teacher: model of the same classes.
      weight: weight of the distillation loss, above 0; the run's losses keep their weights.
      temperature: temperature of the softmax, above 0; see `distillation_loss`.

    Raises:
      DeepLabError: a number is illegal, or the teacher's task or classes are not the student's.
    """
    if weight <= 0 or temperature <= 0:
        raise DeepLabError(f"weight {weight:g} and temperature {temperature:g} must be above 0")
    if teacher.description.task != SEGMENTATION:
        raise DeepLabError("a teacher must be a segmentation network, not a classifier")
    theirs, ours = teacher.description.class_names, run.description.class_names
    if theirs != ours:
        raise DeepLabError(
            f"the teacher's {len(theirs)} classes are not the {len(ours)} of {run.train.name}: "
            f"{', '.join(theirs[:3])}, … and {', '.join(ours[:3])}, …"
        )

    def objective(
        outputs: Outputs, label: jax.Array, batch_label: jax.Array, step: jax.Array
    ) -> jax.Array:
        logits, maps = outputs
        known = losses.num_valid_pixels(batch_label, logits.shape[-1])
        taught = losses.distillation_loss(logits, maps[TEACHER], label, known, temperature)
        return run.objective(outputs, label, batch_label, step) + weight * taught

    model = _taught_network(run.model, teacher)
    return dataclasses.replace(run, model=model, objective=objective)


def _taught_network(student: DeepLab, teacher: StoredModel) -> DeepLab:
    """Returns the student as a network whose training endpoints include the teacher's logits."""
    variables = jax.device_put(teacher.variables)

    class TaughtDeepLab(DeepLab):
        def apply(self, own: Any, image: jax.Array, *, train: bool = False, **keywords: Any) -> Any:
            if not train:
                # Other methods than `__call__`, which evaluation applies, have no `train`.
                return super().apply(own, image, **keywords)
            (logits, maps), changed = super().apply(own, image, train=True, **keywords)
            seen = teacher.model.apply(variables, image, train=False)
            return (logits, maps | {TEACHER: jax.lax.stop_gradient(seen)}), changed

    return TaughtDeepLab(student.architecture)
