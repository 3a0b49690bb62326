"""Cases: the rows of a table adapted to a preset, with complete configs and inference options."""

import copy
import dataclasses
import functools
import hashlib
import itertools
import json
from typing import Any

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.models.output_stride import rates_at_output_stride
from deeplab_jax.training.workdir import network_of
from experiments.fields import set_field
from experiments.grid import Grid, shown
from experiments.presets import Preset
from experiments.scaling import scaled_down
from experiments.table import Changes, Row, Table, Training

# Placeholder for the path of initial weights from an earlier training run. The path is known only
# when the job runs.
PLACEHOLDER = "the-training-before"
INFERENCE_FIELDS = tuple(field.name for field in dataclasses.fields(InferenceOptions))


@dataclasses.dataclass(frozen=True)
class ResolvedTraining:
    """A training run whose config is complete, except for the fields that `jobs.run_job` sets.

    `jobs.run_job` sets these fields:

    * the seed and the data directory,
    * the path of the initial weights, if `after` is not None,
    * the dataset and its splits, if `unlabeled` is not empty.

    Attributes:
      text: the config as JSON. Training runs are equal if `text`, `after`, `devices`
        and `unlabeled` are equal.
      config: the config; must not be modified.
      after: earlier training run whose network provides the initial weights, or None.
      devices: number of devices; None: all devices, or as many as the batch can be divided among.
      unlabeled: split whose images get pseudo-labels from `teacher`; empty: none.
    """

    text: str
    config: ConfigDict = dataclasses.field(compare=False, repr=False)
    after: "ResolvedTraining | None" = None
    devices: int | None = None
    unlabeled: str = ""

    @property
    def teacher(self) -> "ResolvedTraining":
        """Training run of the network that predicts pseudo-labels: `self` without `unlabeled`."""
        return dataclasses.replace(self, unlabeled="")

    def new_config(self) -> ConfigDict:
        """Returns a copy of the config, which may be modified."""
        return copy.deepcopy(self.config)

    @functools.cached_property
    def key(self) -> str:
        """Name of the directory of the training run.

        Equal training runs have the same key, even in different tables. Setting a field to its
        default does not change the key.
        """
        free = (*configs.FREE_FIELDS, "seed")
        fields = {
            name: value
            for name, value in configs.flatten(self.config)
            if name not in free and not name.startswith("model.")
        }
        network = network_of(self.config).describe()
        before = self.after.key if self.after else None
        # Keys of trainings without pseudo-labels are those of earlier releases.
        labels = [self.unlabeled] if self.unlabeled else []
        identity = json.dumps([fields, network, before, self.devices, *labels], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        # The name of the architecture is left out: DeepLab v3+ without a decoder is DeepLab v3.
        parts = [network["backbone"], network["head"], network["decoder"], digest]
        return "-".join(part for part in parts if part != "none")


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of a table, adapted to a preset.

    Attributes:
      row: row of the table. If a grid is given, the label of the row states the grid values of the
        case, and the published values are removed.
      training: training run that the row requires; None if the preset cannot run the row.
      options: inference options of the evaluation.
      why_not: reason why the preset cannot run the row, or None.
    """

    row: Row
    training: ResolvedTraining | None
    options: InferenceOptions
    why_not: str | None = None

    @property
    def strategy(self) -> str:
        """Name of the evaluation strategy: a hash of inference options and trimap width.

        Cases with the same training run and the same strategy share one result.
        """
        values = [self.options.describe(), self.row.trimap]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def make_cases(
    table: Table, preset: Preset, grid: Grid | None = None, init: str = ""
) -> tuple[Case, ...]:
    """Adapts the rows of a table to a preset, and returns them as cases.

    Without a grid, there is one case per row. With a grid, there is one case per row and
    combination of grid values.

    Args:
      table: table whose rows are run.
      preset: preset to which the rows are adapted.
      grid: changes of fields, which are applied after the changes of the row and of the preset;
        None: no grid.
      init: name or path of the initial weights; empty: random weights. Only presets that scale the
        table down use this argument.

    Raises:
      DeepLabError: a field does not exist or a value is illegal.
    """
    points = (grid or Grid()).points()
    pairs = itertools.product(table.rows, points)
    return tuple(_case(table, row, point, preset, init) for row, point in pairs)


def _case(table: Table, row: Row, point: Changes, preset: Preset, init: str) -> Case:
    changes, inference = _by_kind(point)
    if point:
        label, minus = _label(table, row.label, point), row.minus
        # A difference is that of two rows at the same point of the grid.
        minus = None if minus is None else _label(table, minus, point)
        # The published values belong to the row without the changes of the grid.
        row = dataclasses.replace(row, label=label, published=None, costs={}, minus=minus)
    options = _options(row.inference | inference, row.label)
    why_not = _why_not(table, row, preset, init)
    if why_not:
        return Case(row, None, options, why_not)
    try:
        resolved = _resolve(table, table.training(row), preset, init, changes, row.devices)
    except DeepLabError as error:
        raise DeepLabError(f"row {row.label!r}: {error}") from error
    why_not = _no_such_stride(resolved, options)
    return Case(row, None if why_not else resolved, options, why_not)


def _label(table: Table, label: str, point: Changes) -> str:
    """Returns the label of a case: the label of its row, and the values of a grid point.

    If the table has only one row, the label of the row is left out.
    """
    return f"{label}, {shown(point)}" if len(table.rows) > 1 else shown(point)


def _no_such_stride(training: ResolvedTraining, options: InferenceOptions) -> str | None:
    """Returns why the network does not support the output stride of `options`; None if it does."""
    network = network_of(training.config)
    if options.output_stride in (None, network.output_stride):
        return None
    try:
        rates_at_output_stride(network, options.output_stride)
    except DeepLabError as error:
        return str(error)
    return None


def _by_kind(point: Changes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits {field: value} into a dict of config fields and a dict of inference fields.

    In a grid, the names of inference fields start with `inference.`. This prefix is removed.
    """
    prefix = "inference."
    inference = {
        name.removeprefix(prefix): value for name, value in point.items() if name.startswith(prefix)
    }
    return {name: value for name, value in point.items() if not name.startswith(prefix)}, inference


def _options(inference: Changes, label: str) -> InferenceOptions:
    for name in inference:
        if name not in INFERENCE_FIELDS:
            raise unknown_name(f"inference field of row {label!r}", name, INFERENCE_FIELDS)
    return InferenceOptions(**inference)


def _why_not(table: Table, row: Row, preset: Preset, init: str) -> str | None:
    """Returns the reason why a preset cannot run a row of a table; None if it can."""
    if not preset.scales_down:
        return None
    if table.claims:
        return "small presets would change the sizes that the task tests; use --preset=paper"
    if row.after:
        return _why_no_start(row.after)
    if row.changes.get("model.frozen_batch_norm") and not init:
        return "frozen batch normalization requires initial weights; give --init"
    return None


def _why_no_start(before: Training) -> str:
    """Returns why small presets do not run rows that start from the training run `before`."""
    if before.recipe.partition(":")[0] == "deeplab_v1":
        return "multi-scale features require VGG-16, which has no small variant"
    if "coco" in f"{before.recipe} {before.changes.get('data.name')}":
        return "the row starts from a network trained on COCO; there is no small dataset for COCO"
    return "small presets do not support rows that start from another run; use --preset=paper"


def _resolve(
    table: Table,
    training: Training,
    preset: Preset,
    init: str,
    changes: Changes,
    devices: int | None = None,
) -> ResolvedTraining:
    config = load_recipe(training)
    if preset.scales_down:
        base = load_recipe(Training(table.recipe))
        size = preset.published if init else preset.small
        if table.varies_resnet and not init:
            size = preset.resnet
        config = scaled_down(config, base, preset, size, init)
    for field, value in changes.items():
        set_field(config, field, value)
    network_of(config)
    after = training.after and _resolve(table, training.after, preset, init, {}, None)
    return ResolvedTraining(configs.to_json(config), config, after, devices, training.unlabeled)


def load_recipe(training: Training) -> ConfigDict:
    """Returns the config `training.recipe`, with the changes `training.changes` applied.

    If `training.after` is set, the path of the initial weights is `PLACEHOLDER`.

    Raises:
      DeepLabError: there is no such recipe or field.
    """
    reference = training.recipe
    if training.after:
        reference += ("," if ":" in reference else ":") + f"init={PLACEHOLDER}"
    config = configs.load(reference)
    for field, value in training.changes.items():
        set_field(config, field, value)
    return config
