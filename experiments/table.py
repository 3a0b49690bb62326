"""Tables as data: rows of config changes, with the published value of each row."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Metrics of a table and their units.
METRICS = {
    "mIoU": "mean IoU, %",
    "delta mIoU": "mean IoU above that of another row, %",
    "img/s": "images per second in training",
    "GMAdds": "multiply-adds of inference, billions",
    "Mparams": "parameters, millions",
}
Changes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training: a recipe with changes.

    Attributes:
      recipe: config reference, as in `deeplab-jax train --config`; must not set `init` if `after`
        is given.
      changes: values by config field.
      after: training whose network provides the initial weights, or None.
    """

    recipe: str
    changes: Changes = dataclasses.field(default_factory=dict)
    after: "Training | None" = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      label: label of the row, unique in the table.
      published: published value of the table's metric, or None.
      changes: values by config field that differ from the recipe.
      inference: values by field of `InferenceOptions`.
      costs: other published values, by metric.
      recipe: recipe of this row (default: that of the table).
      after: training whose network provides the initial weights, or None.
      minus: for the metric `delta mIoU`, label of the row whose value is subtracted.
      trimap: width in pixels of the band around void in which mean IoU is computed; None: all
        pixels.
      devices: number of devices for training; None: all.
    """

    label: str
    published: float | None = None
    changes: Changes = dataclasses.field(default_factory=dict)
    inference: Changes = dataclasses.field(default_factory=dict)
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    recipe: str | None = None
    after: Training | None = None
    minus: str | None = None
    trimap: int | None = None
    devices: int | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """Claim of a paper, and the effect by which `experiments.claims` decides it.

    Attributes:
      text: the claim, in one line.
      source: paper, table and page.
      better, worse: labels of the rows; the claim expects a higher value of the first.
      effect: smallest relevant difference in the metric of the table, above 0; fixed before any
        run.
    """

    text: str
    source: str
    better: str
    worse: str
    effect: float


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a paper, or an ablation of this project.

    Attributes:
      title: subject of the table.
      paper: short name of the paper, such as v3+; `own` for ablations of this project.
      number: number of the table in the paper.
      recipe: config reference that all rows start from.
      rows: rows in the order of the paper.
      metric: metric of `Row.published`, one of `METRICS`.
      dataset, split: dataset and split of the published values.
      notes: remarks that the report prints below the table.
      claims: claims that the rows decide.
    """

    title: str
    paper: str
    number: str
    recipe: str
    rows: tuple[Row, ...]
    metric: str = "mIoU"
    dataset: str = "VOC12"
    split: str = "val"
    notes: str = ""
    claims: tuple[Claim, ...] = ()

    def training(self, row: Row) -> Training:
        """Returns the training of a row."""
        return Training(row.recipe or self.recipe, row.changes, row.after)

    def published(self, row: Row) -> dict[str, float]:
        """Returns all published values of a row by metric."""
        own = {} if row.published is None else {self.metric: row.published}
        return own | dict(row.costs)

    @property
    def varies_resnet(self) -> bool:
        """True if a row sets a field that requires a ResNet: multi-grid or cascade."""
        settings = [self.recipe, *(row.recipe or "" for row in self.rows)]
        return any("cascade" in text for text in settings) or any(
            row.changes.get(field) is not None
            for row in self.rows
            for field in ("model.multi_grid", "model.cascade_blocks")
        )
