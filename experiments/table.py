"""Tables as data: rows of changes with the number that was published for each."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Metrics of a table and their units.
METRICS = {
    "mIoU": "mean IoU, %",
    "delta mIoU": "mean IoU above that of another row, %",
    "img/s": "images a second in training",
    "GMAdds": "multiply-adds of inference, billions",
    "Mparams": "parameters, millions",
}
Changes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training run: a recipe and its changes.

    Attributes:
      recipe: as `deeplab-jax train --config` takes it; without `init` where there is an `after`.
      changes: values by config field.
      after: the training whose network it starts from.
    """

    recipe: str
    changes: Changes = dataclasses.field(default_factory=dict)
    after: "Training | None" = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      label: what the row says of itself; no two rows of a table have the same.
      published: value of the table's metric; None where nothing was published.
      changes: values by config field, on top of the recipe's.
      inference: values by field of `InferenceOptions`.
      costs: other published values, by metric.
      recipe: instead of the table's.
      after: the training whose network this row's starts from.
      minus: label of the row whose value is taken off, of `delta mIoU`.
      trimap: width in pixels of the band around void that mean IoU is of; None: all pixels.
      devices: how many share each batch; None: all there are.
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
class Table:
    """A table of a paper, or one of our own.

    Attributes:
      title: what it compares.
      paper: short name, as v3+; `own` for tables that no paper has.
      number: of the table in its paper.
      recipe: the base config of its rows.
      rows: in the paper's order.
      metric: of `Row.published`, one of `METRICS`.
      dataset, split: what the published values are of.
      notes: what a reader of the numbers must know.
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

    def training(self, row: Row) -> Training:
        """Returns what a row trains."""
        return Training(row.recipe or self.recipe, row.changes, row.after)

    def published(self, row: Row) -> dict[str, float]:
        """Returns all published values of a row by metric."""
        own = {} if row.published is None else {self.metric: row.published}
        return own | dict(row.costs)

    @property
    def varies_resnet(self) -> bool:
        """Returns whether the rows differ in a ResNet-only field: multi-grid or a cascade."""
        settings = [self.recipe, *(row.recipe or "" for row in self.rows)]
        return any("cascade" in text for text in settings) or any(
            row.changes.get(field) is not None
            for row in self.rows
            for field in ("model.multi_grid", "model.cascade_blocks")
        )
