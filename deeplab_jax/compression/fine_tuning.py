"""Fine-tuning of compressed models, and distillation from a teacher."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from deeplab_jax import checkpointing, losses
from deeplab_jax import config as configs
from deeplab_jax.checkpointing import SEGMENTATION, StoredModel
from deeplab_jax.errors import DeepLabError, class_difference
from deeplab_jax.files import remove_directory
from deeplab_jax.models import Architecture
from deeplab_jax.models.architectures import frozen
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import train
from deeplab_jax.training.loss import Outputs
from deeplab_jax.training.setup import Run
from deeplab_jax.training.workdir import CONFIG_FILE, has_results

# Keywords of `create_model` that follow from the dataset of a training run, not from its config.
FROM_DATA = ("num_classes", "in_channels", "image_dtype")
# Directory of the initial model in the workdir of a fine-tuning run.
START = "start"
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Architecture)}


def recipe_of(directory: Path) -> ConfigDict:
    """Returns the config stored in a directory, or the default config if none is stored.

    Raises:
      DeepLabError: the stored config cannot be read.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        return configs.default()
    try:
        return configs.read(path)
    except DeepLabError as error:
        raise DeepLabError(f"{error}; restore the file, or give --config=FILE") from error


def with_network(config: ConfigDict, description: checkpointing.ModelDescription) -> ConfigDict:
    """Returns a copy of a config whose section `model` describes the network of a stored model.

    Raises:
      DeepLabError: a keyword of the network differs from its default, and no config field sets it.
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
                    f"the model cannot be fine-tuned, because it has {name}={value!r}, and no "
                    f"config field sets {name}; give another model"
                )
    return changed


def initial_model(workdir: Path) -> StoredModel | None:
    """Returns the model that a run of `fine_tune` started from; None if there is no run to resume.

    Args:
      workdir: directory of the run.
    """
    # A run that failed before it logged metrics leaves a model, but nothing to resume.
    if has_results(workdir) and checkpointing.is_model(workdir / START):
        return checkpointing.read_model(workdir / START)
    return None


def _write_initial_model(workdir: Path, stored: StoredModel) -> None:
    """Writes the initial model of a new run, or checks that an existing run started from it.

    Args:
      workdir: directory of the run.
      stored: initial model.

    Raises:
      DeepLabError: the existing run started from another model.
    """
    earlier = initial_model(workdir)
    if earlier is None:
        if (workdir / START).exists():
            remove_directory(workdir / START)
        checkpointing.write_model(workdir / START, stored.description, stored.variables)
    elif digest(earlier) != digest(stored):
        raise DeepLabError(
            f"{workdir} contains a run of another model; give another --output, or remove {workdir}"
        )


def digest(stored: StoredModel) -> str:
    """Returns the SHA-256 of the network, classes and variables of a model, in hexadecimal.

    Keywords of the network that have their default values are left out. Later releases can
    therefore add keywords without changing the digest of a model.
    """
    keywords = stored.model.architecture.describe()
    chosen = {name: value for name, value in keywords.items() if value != DEFAULTS.get(name)}
    variables = checkpointing.digest_of_variables(stored.variables)
    facts = [stored.description.architecture, chosen, stored.description.class_names, variables]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fine_tune(
    stored: StoredModel,
    config: ConfigDict,
    workdir: Path,
    steps: int,
    reporter: Reporter,
    adjust: Callable[[Run], Run] = lambda run: run,
) -> StoredModel:
    """Fine-tunes a model and returns it with the parameters after the last step.

    The initial model is stored in `workdir/start`. A call with the workdir of an interrupted run
    resumes this run if the initial model is the same.

    Args:
      stored: initial model.
      config: training config. Its network and its initial weights are replaced by the network and
        the weights of `stored`.
      workdir: directory of the run.
      steps: number of training steps.
      reporter: receives progress events.
      adjust: function that modifies the run before it starts; see `train`.

    Raises:
      DeepLabError: the config, dataset or workdir is invalid, the workdir contains a run of another
        model or with other settings, the loss became infinite or NaN, or model and dataset have
        different numbers of classes.
    """
    _write_initial_model(workdir, stored)
    config = with_network(config, stored.description)
    config.training.num_steps = steps
    config.training.init_from = str(workdir / START)
    config.training.init_scope = "all"
    num_classes = len(stored.description.class_names)

    def checked(run: Run) -> Run:
        if len(run.description.class_names) != num_classes:
            raise DeepLabError(
                f"the model has {num_classes} classes, but the dataset {run.train.name} has "
                f"{len(run.description.class_names)}; use a dataset with the classes of the model"
            )
        return adjust(run)

    result = train(config, workdir, reporter=reporter, adjust=checked)
    fine_tuned = {"steps": result.step, "on": config.data.name}
    source = stored.description.source | {"fine_tuned": fine_tuned}
    if not config.model.frozen_batch_norm:
        source.pop("folded_batch_norm", None)
    return stored.changed(checkpointing.read_variables(workdir, "last"), source=source)


# Key of the teacher's logits among the endpoints of the student.
TEACHER = "teacher"


def distilled(run: Run, teacher: StoredModel, weight: float, temperature: float) -> Run:
    """Returns a training run whose loss also contains a distillation loss.

    The student and the teacher process the same crops. The teacher runs in evaluation mode.

    Args:
      run: training run of the student.
      teacher: segmentation model with the same classes and bands.
      weight: factor of the distillation loss, above 0; the weights of the other losses do not
        change.
      temperature: temperature of the softmax, above 0; see `distillation_loss`.

    Raises:
      DeepLabError: weight or temperature is not above 0, the teacher is a classifier, or the
        classes or bands of teacher and student differ.
    """
    if weight <= 0 or temperature <= 0:
        raise DeepLabError(
            "weight and temperature of the distillation must be above 0, got "
            f"weight={weight:g} and temperature={temperature:g}"
        )
    if teacher.description.task != SEGMENTATION:
        raise DeepLabError(
            "the teacher classifies whole images; give a segmentation network as teacher"
        )
    theirs, ours = teacher.description.class_names, run.description.class_names
    if theirs != ours:
        raise DeepLabError(
            f"the classes of the teacher are not those of the dataset {run.train.name}: "
            f"{class_difference(theirs, ours)}; give a teacher with the classes of the dataset"
        )
    taken, found = teacher.description.image_bands, run.description.image_bands
    if (taken.count, taken.dtype) != (found.count, found.dtype):
        raise DeepLabError(
            f"the teacher takes {taken}, but the images of the dataset {run.train.name} have "
            f"{found}; give a teacher with the bands of the dataset"
        )

    def objective(
        outputs: Outputs, label: jax.Array, batch_label: jax.Array, step: jax.Array
    ) -> jax.Array:
        logits, maps = outputs
        known = losses.num_valid_pixels(batch_label, logits.shape[-1])
        taught = losses.distillation_loss(logits, maps[TEACHER], label, known, temperature)
        return run.objective(outputs, label, batch_label, step) + weight * taught

    model = _taught_network(run.model, teacher)
    adjustments = run.adjustments | {
        "teacher": digest(teacher),
        "teacher_weight": weight,
        "teacher_temperature": temperature,
    }
    return dataclasses.replace(run, model=model, objective=objective, adjustments=adjustments)


def _taught_network(student: DeepLab, teacher: StoredModel) -> DeepLab:
    """Returns the student network, which in training also computes the logits of the teacher.

    With `train=True`, `apply` adds the teacher's logits for the same images to the endpoints, under
    the key TEACHER. The distillation loss compares them with the student's logits.
    """
    variables = jax.device_put(teacher.variables)

    class TaughtDeepLab(DeepLab):
        # In this package, every call passes one batch of images, and `train` as a keyword.
        def apply(  # type: ignore[override]
            self, own: Any, image: jax.Array, *, train: bool = False, **keywords: Any
        ) -> Any:
            if not train:
                # Evaluation applies other methods than `__call__`; they do not accept `train`.
                return super().apply(own, image, **keywords)
            (logits, maps), changed = super().apply(own, image, train=True, **keywords)
            seen = teacher.model.apply(variables, image, train=False)
            return (logits, maps | {TEACHER: jax.lax.stop_gradient(seen)}), changed

    return TaughtDeepLab(student.architecture)
