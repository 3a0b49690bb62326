"""Tables as data: each row states changes of a config, and the published value."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Metrics of tables: name in `Row` and `Table`, and title with unit.
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
    """A training run: a recipe, changes of its fields, and initial weights.

    Attributes:
      recipe: config reference, as in `deeplab-jax train --config`. It must not contain `init` if
        `after` is given.
      changes: config fields that differ from the recipe, and their values.
      after: earlier training run whose network provides the initial weights, or None.
      unlabeled: split whose images are added to the training split with pseudo-labels; empty: none.
        The pseudo-labels are predictions of a network that is trained in the same way, but without
        this split.
    """

    recipe: str
    changes: Changes = dataclasses.field(default_factory=dict)
    after: "Training | None" = None
    unlabeled: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      label: label of the row, unique in the table.
      published: published value of the metric `Table.metric`, or None.
      changes: config fields that differ from the recipe, and their values.
      inference: fields of `InferenceOptions` that differ from their defaults, and their values.
      costs: published values of metrics other than the table's metric, by name of the metric.
      recipe: recipe of this row (default: recipe of the table).
      after: earlier training run whose network provides the initial weights, or None.
      minus: for the metric `delta mIoU`, label of the row whose mean IoU is subtracted; None: the
        metric of this row is `mIoU`.
      trimap: width in pixels of the band around void pixels within which mean IoU is computed;
        None: mean IoU of all pixels.
      devices: number of devices for training; None: all devices, or as many as the batch can be
        divided among.
      unlabeled: split whose images get pseudo-labels and are added to the training split, as in
        `Training`; empty: none.
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
    unlabeled: str = ""


@dataclasses.dataclass(frozen=True)
class Claim:
    """Claim of a paper that one row is better than another; see `experiments.claims`.

    Attributes:
      text: the claim, in one line.
      source: paper, and table, figure or section of the claim.
      better, worse: labels of the two rows; the claim is that `better` has the higher value.
      effect: smallest difference of the two values that counts as relevant, in the unit of the
        table's metric, above 0. It was fixed before any run.
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
      number: number of the table in the paper, as text; figures are written as `fig5`.
      recipe: config that all rows change, as in `deeplab-jax train --config`.
      rows: rows in the order of the paper.
      metric: metric of `Row.published`, one of `METRICS`.
      dataset, split: dataset and split of the published values.
      notes: remarks that the report prints below the table.
      claims: claims that are decided by comparing rows.
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
        """Returns the training run that a row requires."""
        return Training(row.recipe or self.recipe, row.changes, row.after, row.unlabeled)

    def metric_of(self, row: Row) -> str:
        """Returns the metric of a row: `metric`, or `mIoU` if there is no row to subtract."""
        return "mIoU" if self.metric == "delta mIoU" and row.minus is None else self.metric

    def published(self, row: Row) -> dict[str, float]:
        """Returns {metric: published value} for all published values of a row."""
        own = {} if row.published is None else {self.metric_of(row): row.published}
        return own | dict(row.costs)

    @property
    def varies_resnet(self) -> bool:
        """True if a row sets multi-grid or has cascaded blocks, which require a ResNet."""
        settings = [self.recipe, *(row.recipe or "" for row in self.rows)]
        return any("cascade" in text for text in settings) or any(
            row.changes.get(field) is not None
            for row in self.rows
            for field in ("model.multi_grid", "model.cascade_blocks")
        )
