"""A table's rows under a preset: what each trains, and how it is evaluated."""

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
from deeplab_jax.training.checkpoints import network_of
from experiments.fields import set_field
from experiments.grid import Grid, shown
from experiments.presets import Preset
from experiments.scaling import scaled_down
from experiments.table import Changes, Row, Table, Training

# Placeholder for the initial weights of a recipe whose path only the runner knows.
PLACEHOLDER = "the-training-before"
INFERENCE_FIELDS = tuple(field.name for field in dataclasses.fields(InferenceOptions))


@dataclasses.dataclass(frozen=True)
class ResolvedTraining:
    """A training with every field decided, but for its seed and where it starts from.

    Attributes:
      text: of the config, as JSON; two of one text are the same.
      config: to read.
      after: whose network it starts from.
      devices: how many; None: all.
    """

    text: str
    config: ConfigDict = dataclasses.field(compare=False, repr=False)
    after: "ResolvedTraining | None" = None
    devices: int | None = None

    def new_config(self) -> ConfigDict:
        """Returns the config, to change."""
        return copy.deepcopy(self.config)

    @functools.cached_property
    def key(self) -> str:
        """Names it: equal trainings have equal keys, whichever table they stand in.

        A default value and the same value by name are equal.
        """
        free = (*configs.FREE_FIELDS, "seed")
        fields = {
            name: value
            for name, value in configs.flatten(self.config)
            if name not in free and not name.startswith("model.")
        }
        network = network_of(self.config).describe()
        before = self.after.key if self.after else None
        identity = json.dumps([fields, network, before, self.devices], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        # Not the architecture's name: DeepLab v3+ without its decoder is DeepLab v3.
        parts = [network["backbone"], network["head"], network["decoder"], digest]
        return "-".join(part for part in parts if part != "none")


@dataclasses.dataclass(frozen=True)
class Case:
    """A row under a preset.

    Attributes:
      row: of the table, or made from one by a grid.
      training: what must be trained; None where the preset cannot show the row.
      options: how the network is applied.
      why_not: the reason why the preset cannot show it.
    """

    row: Row
    training: ResolvedTraining | None
    options: InferenceOptions
    why_not: str | None = None

    @property
    def strategy(self) -> str:
        """Names the evaluation: equal strategies on equal trainings have one result."""
        values = [self.options.describe(), self.row.trimap]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def make_cases(
    table: Table, preset: Preset, grid: Grid | None = None, init: str = ""
) -> tuple[Case, ...]:
    """Returns the rows of a table under a preset, each with every point of a grid.

    Args:
      table: the rows.
      preset: data, sizes.
      grid: changes on top of what row and preset say; None: none.
      init: weights that a preset's small networks start from.

    Raises:
      DeepLabError: a field does not exist or a value is illegal.
    """
    points = (grid or Grid()).points()
    pairs = itertools.product(table.rows, points)
    return tuple(_case(table, row, point, preset, init) for row, point in pairs)


def _case(table: Table, row: Row, point: Changes, preset: Preset, init: str) -> Case:
    changes, inference = _by_kind(point)
    if point:
        label = f"{row.label}, {shown(point)}" if len(table.rows) > 1 else shown(point)
        # A row changed by a grid was not published.
        row = dataclasses.replace(row, label=label, published=None, costs={}, minus=None)
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


def _no_such_stride(training: ResolvedTraining, options: InferenceOptions) -> str | None:
    """Returns why the trained network cannot be had at the stride of evaluation; None: it can."""
    network = network_of(training.config)
    if options.output_stride in (None, network.output_stride):
        return None
    try:
        rates_at_output_stride(network, options.output_stride)
    except DeepLabError as error:
        return str(error)
    return None


def _by_kind(point: Changes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the changes of the config and those of inference (`inference.FIELD`)."""
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
    """Returns why a small training from scratch cannot stand for the row; None if it can."""
    if not preset.scales_down:
        return None
    if row.after and row.after.recipe.partition(":")[0] not in ("deeplab_v1",):
        return "starts from a network trained on COCO, for which there is no small dataset"
    if row.after:
        return "multi-scale features are VGG-16's, which has no small form"
    if row.changes.get("model.frozen_batch_norm") and not init:
        return "frozen statistics need a trained network to start from"
    return None


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
    return ResolvedTraining(configs.to_json(config), config, after, devices)


def load_recipe(training: Training) -> ConfigDict:
    """Returns the config of a training's recipe with its changes.

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
