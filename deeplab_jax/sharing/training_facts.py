"""Facts about the training and evaluation of a model, read from workdirs and `metrics.json`."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deeplab_jax import config as configs
from deeplab_jax import models
from deeplab_jax.checkpointing import CHECKPOINTS, ModelDescription
from deeplab_jax.errors import DeepLabError, class_difference
from deeplab_jax.evaluation.report import SUMMARY
from deeplab_jax.files import as_path
from deeplab_jax.pretrained import list_pretrained
from deeplab_jax.pretrained.hub import is_hub_address
from deeplab_jax.training.hooks import VALIDATION
from deeplab_jax.training.workdir import CONFIG_FILE, DATA_FILE
from deeplab_jax.training.writers import read_rows

METRICS_FILE = "metrics.json"
# Fields that name directories of the machine or do not change the result.
UNSTATED = frozenset(configs.FREE_FIELDS) | {"training.init_from"}
METRIC_KEYS = ("mean_iou", "per_class_iou", "num_images", "settings")
# Keys of the facts about a split that the model card states.
DATA_KEYS = ("name", "split", "num_images")
# Keys of METRIC_KEYS whose values are JSON objects.
METRIC_OBJECTS = ("per_class_iou", "settings")


@dataclasses.dataclass(frozen=True)
class TrainingFacts:
    """Facts about the training run of a model.

    Attributes:
      recipe: config fields that differ from their defaults. Fields that do not affect the result,
        such as directories, are left out.
      init_from: pretrained name or Hub address of the initial weights; empty: random initialization
        or weights that are not public.
      data: name, split and number of images of the training and the validation data.
      step: training step of the checkpoint.
      validation_mean_iou: validation mean IoU of the model, as a fraction; None: there was no
        validation at this step, or it measured the moving average of the variables instead.
    """

    recipe: Mapping[str, Any]
    init_from: str
    data: Mapping[str, Mapping[str, Any]]
    step: int
    validation_mean_iou: float | None


def read_training(
    path: Path, description: ModelDescription, checkpoint: str, ema: bool | None = None
) -> TrainingFacts | None:
    """Reads the facts about the training run of a model.

    Args:
      path: workdir of the training run, or a model directory.
      description: content of `model.json` in the directory `path`.
      checkpoint: `best`, `last` or a step.
      ema: whether the model has the moving average of the variables, as in `read_model`. If it is
        False although the run stored the average, the validation mean IoU is left out, because the
        validation measured the average.

    Returns:
      The facts; None if `path` is a model directory, which does not describe the training run.

    Raises:
      DeepLabError: there is no such checkpoint, or the config of the run or the description of its
        data cannot be read.
    """
    if not ((path / CHECKPOINTS).is_dir() and (path / CONFIG_FILE).is_file()):
        return None
    from deeplab_jax.checkpointing import choose_step, open_checkpoints
    from deeplab_jax.files import absolute

    with open_checkpoints(absolute(path)) as manager:
        step = choose_step(manager, checkpoint)
    config = configs.read(path / CONFIG_FILE)
    fields = dict(configs.flatten(config))
    defaults = dict(configs.flatten(configs.default())) | _network_defaults(description)
    recipe = {
        name: value
        for name, value in fields.items()
        if name not in UNSTATED and value not in (None, defaults[name])
    }
    start = fields["training.init_from"] or ""
    is_public = is_hub_address(start) or start in list_pretrained()
    is_validated = ema is not False or not fields["training.ema_decay"]
    rows = read_rows(path) if is_validated else []
    scores = [row[VALIDATION] for row in rows if row["step"] == step and VALIDATION in row]
    public_start, score = start if is_public else "", scores[-1] if scores else None
    return TrainingFacts(recipe, public_start, _read_data(path / DATA_FILE), step, score)


def _read_data(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the facts about the data of a run, by role; returns {} if the file does not exist.

    Raises:
      DeepLabError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        data = {role: dict(facts) for role, facts in json.loads(path.read_text()).items()}
        missing = {
            f"{role}.{key}" for role, facts in data.items() for key in DATA_KEYS if key not in facts
        }
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
    except (AttributeError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"{path}, which describes the data of the run, cannot be read: {error}; delete it to "
            "push the model without the names of its data"
        ) from error
    return data


def _network_defaults(description: ModelDescription) -> dict[str, Any]:
    """Returns {"model.NAME": default} for the config fields that set options of a network.

    The defaults depend on the architecture, the backbone and the number of classes, which are taken
    from the description. `model.backbone` and `model.num_classes` have no entry.
    """
    given = {name: description.overrides[name] for name in ("backbone", "num_classes")}
    defaults = models.create_model(description.architecture, **given).architecture.describe()
    return {f"model.{name}": value for name, value in defaults.items() if name not in given}


def read_metrics(paths: Sequence[str], description: ModelDescription) -> list[dict[str, Any]]:
    """Reads `metrics.json` files that `deeplab-jax evaluate --output` wrote.

    Args:
      paths: paths of `metrics.json`, or of directories that contain it.
      description: description of the evaluated model.

    Raises:
      DeepLabError: a file does not exist, was not written by `evaluate`, or has the metrics of a
        model with other classes.
    """
    return [_read_metrics(path, description) for path in paths]


def _read_metrics(reference: str, description: ModelDescription) -> dict[str, Any]:
    path = as_path(reference)
    path = path / METRICS_FILE if path.is_dir() else path
    if not path.is_file():
        raise DeepLabError(
            f"{path}: no such file; give a metrics.json, or the directory in which "
            "`deeplab-jax evaluate --output` wrote it"
        )
    try:
        metrics = json.loads(path.read_text())
    except ValueError as error:
        raise DeepLabError(
            f"{path} is not a metrics.json of `deeplab-jax evaluate`: {error}"
        ) from error
    if not isinstance(metrics, dict) or not all(key in metrics for key in METRIC_KEYS):
        raise DeepLabError(
            f"{path} is not a metrics.json of `deeplab-jax evaluate`: it must have the keys "
            f"{', '.join(METRIC_KEYS)}"
        )
    if not all(isinstance(metrics[key], dict) for key in METRIC_OBJECTS):
        raise DeepLabError(
            f"{path} is not a metrics.json of `deeplab-jax evaluate`: "
            f"{' and '.join(METRIC_OBJECTS)} must be JSON objects"
        )
    _check_entries(path, metrics)
    scored = list(metrics["per_class_iou"])
    if "classes" not in metrics["settings"] and scored != list(description.class_names):
        raise DeepLabError(
            f"{path} has the metrics of a model with other classes: "
            f"{class_difference(scored, description.class_names)}; give the metrics of the model "
            "to push"
        )
    return metrics


def _check_entries(path: Path, metrics: Mapping[str, Any]) -> None:
    """Checks the entries of a `metrics.json` that the model card states.

    Raises:
      DeepLabError: the settings do not state the data, or a metric is not a number.
    """
    missing = [name for name in ("dataset", "split") if name not in metrics["settings"]]
    if missing:
        raise DeepLabError(
            f"{path} is not a metrics.json of `deeplab-jax evaluate`: its settings must have the "
            f"keys {', '.join(missing)}"
        )
    stated = {name: metrics[name] for name in SUMMARY if name in metrics} | metrics["per_class_iou"]
    for name, value in stated.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise DeepLabError(
                f"{path} is not a metrics.json of `deeplab-jax evaluate`: {name} must be a number "
                f"or null, got {value!r}"
            )
