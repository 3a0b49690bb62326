"""Fine-tuning of compressed models, and distillation from a teacher."""

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
from deeplab_jax.models import Architecture
from deeplab_jax.models.architectures import frozen
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import train
from deeplab_jax.training.checkpoints import CONFIG_FILE
from deeplab_jax.training.loss import Outputs
from deeplab_jax.training.setup import Run

# Keywords of `create_model` that a training run takes from its dataset.
FROM_DATA = ("num_classes", "in_channels", "image_dtype")
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Architecture)}


def recipe_of(directory: Path) -> ConfigDict:
    """Returns the training config of a workdir, or the default config for a model directory."""
    path = directory / CONFIG_FILE
    return configs.from_json(path.read_text()) if path.is_file() else configs.default()


def with_network(config: ConfigDict, description: checkpointing.ModelDescription) -> ConfigDict:
    """Returns a copy of the config whose network is that of a stored model.

    Raises:
      DeepLabError: the network has a keyword that no config field sets.
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
                raise DeepLabError(
                    f"a network with {name}={value!r} cannot be trained: no config field sets it"
                )
    return changed


def fine_tune(
    stored: StoredModel,
    config: ConfigDict,
    workdir: Path,
    steps: int,
    reporter: Reporter,
    adjust: Callable[[Run], Run] = lambda run: run,
) -> StoredModel:
    """Fine-tunes a model and returns the result.

    The workdir stores the initial model and the training run, which resumes after an interruption.

    Args:
      stored: initial model.
      config: training config; network and initialization are replaced by those of the model.
      workdir: directory of the run.
      steps: number of training steps.
      reporter: receives progress events.
      adjust: function that modifies the run before it starts; see `train`.

    Raises:
      DeepLabError: see `train`, or model and dataset differ in their number of classes.
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
                f"the model has {num_classes} classes, but {run.train.name} has "
                f"{len(run.description.class_names)}; fine-tune on a dataset with the same classes"
            )
        return adjust(run)

    result = train(config, workdir, reporter=reporter, adjust=checked)
    fine_tuned = {"steps": result.step, "on": config.data.name}
    source = stored.description.source | {"fine_tuned": fine_tuned}
    if not config.model.frozen_batch_norm:
        source.pop("folded_batch_norm", None)
    return stored.changed(checkpointing.read_variables(workdir, "last"), source=source)


# Name under which the teacher's logits are added to the endpoints of the student.
TEACHER = "teacher"


def distilled(run: Run, teacher: StoredModel, weight: float, temperature: float) -> Run:
    """Returns the training run with a distillation loss added to its loss.

    The teacher is applied to the same crops as the student, in evaluation mode.

    Args:
      run: training run of the student.
      teacher: segmentation model with the same classes.
      weight: weight of the distillation loss, above 0; the weights of the run's losses do not
        change.
      temperature: temperature of the softmax, above 0; see `distillation_loss`.

    Raises:
      DeepLabError: weight or temperature is not above 0, the teacher is a classifier, or the
        classes of teacher and student differ.
    """
    if weight <= 0 or temperature <= 0:
        raise DeepLabError(f"weight {weight:g} and temperature {temperature:g} must be above 0")
    if teacher.description.task != SEGMENTATION:
        raise DeepLabError("a teacher must be a segmentation network, not a classifier")
    theirs, ours = teacher.description.class_names, run.description.class_names
    if theirs != ours:
        raise DeepLabError(
            f"the teacher has {len(theirs)} classes ({', '.join(theirs[:3])}, …), {run.train.name} "
            f"has {len(ours)} ({', '.join(ours[:3])}, …); they must be equal"
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
    """Returns the student, with the teacher's logits among its endpoints in training."""
    variables = jax.device_put(teacher.variables)

    class TaughtDeepLab(DeepLab):
        # Every call gives one image, and `train` by name.
        def apply(  # type: ignore[override]
            self, own: Any, image: jax.Array, *, train: bool = False, **keywords: Any
        ) -> Any:
            if not train:
                # Evaluation applies methods other than `__call__`, which take no `train`.
                return super().apply(own, image, **keywords)
            (logits, maps), changed = super().apply(own, image, train=True, **keywords)
            seen = teacher.model.apply(variables, image, train=False)
            return (logits, maps | {TEACHER: jax.lax.stop_gradient(seen)}), changed

    return TaughtDeepLab(student.architecture)
