"""Measured and published values of the rows of a table."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from experiments.cases import Case
from experiments.costs import COSTS, Counter
from experiments.storage import Storage
from experiments.table import Table


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Values of one metric for one row, over seeds.

    Attributes:
      case: case of the row.
      metric: one of `table.METRICS`.
      published: published value, or None.
      values: values by seed, in the unit of the metric, for all seeds with a result. Costs, which
        do not depend on the seed, have the key 0.
      note: reason why the row cannot be run, or the remark `same run as: LABEL` if an earlier row
        has the same training run and evaluation; otherwise empty.
    """

    case: Case
    metric: str
    published: float | None
    values: Mapping[int, Fraction]
    note: str = ""

    @property
    def mean(self) -> float | None:
        """Mean over seeds, or None without values."""
        return _mean(list(self.values.values()))

    @property
    def standard_deviation(self) -> float | None:
        """Sample standard deviation (n − 1) over seeds; None for fewer than two seeds."""
        return _standard_deviation(list(self.values.values()))

    @property
    def difference(self) -> float | None:
        """Mean over seeds minus the published value; None if one of them is missing."""
        if not self.values or self.published is None:
            return None
        mean = sum(self.values.values()) / len(self.values)
        return float(mean - Fraction(str(self.published)))

    def change(self, first: "Measurement") -> tuple[float | None, float | None]:
        """Returns the mean and the standard deviation of the change relative to `first`.

        The change for a seed is the value of this measurement minus the value of `first`. Only
        seeds with both values are used. The mean is None if there is no such seed, and the standard
        deviation is None if there are fewer than two.
        """
        both = [seed for seed in self.values if seed in first.values]
        changes = [self.values[seed] - first.values[seed] for seed in both]
        return _mean(changes), _standard_deviation(changes)


def _mean(values: Sequence[Fraction]) -> float | None:
    return float(sum(values) / len(values)) if values else None


def _standard_deviation(values: Sequence[Fraction]) -> float | None:
    return float(statistics.stdev(values)) if len(values) > 1 else None


def measure(
    table: Table, cases: Sequence[Case], storage: Storage, seeds: int, counter: Counter
) -> list[Measurement]:
    """Returns a measurement for each case and each metric: that of the row, and its costs.

    Args:
      table: table from which the cases were made.
      cases: rows of the table, adapted to a preset.
      storage: reads the results of training runs and evaluations.
      seeds: number of seeds; results are read for the seeds 0..seeds − 1.
      counter: counts parameters and multiply-adds.
    """
    by_label = {case.row.label: case for case in cases}
    shared: dict[tuple[str, str, int | None], str] = {}
    found = []
    for case in cases:
        published = table.published(case.row)
        note = case.why_not or ""
        if case.training is not None:
            identity = case.training.key, case.strategy, case.row.trimap
            first = shared.setdefault(identity, case.row.label)
            note = "" if first == case.row.label else f"same run as: {first}"
        metrics = [table.metric_of(case.row), *case.row.costs]
        for metric in metrics:
            values = _values(metric, case, by_label, storage, seeds, counter)
            found.append(Measurement(case, metric, published.get(metric), values, note))
    return found


def _values(
    metric: str,
    case: Case,
    by_label: Mapping[str, Case],
    storage: Storage,
    seeds: int,
    counter: Counter,
) -> dict[int, Fraction]:
    if case.training is None:
        return {}
    if metric in COSTS:
        return {0: Fraction(COSTS[metric](case, counter))}
    other = by_label.get(case.row.minus) if metric == "delta mIoU" and case.row.minus else None
    found = {seed: _value(metric, case, other, storage, seed) for seed in range(seeds)}
    return {seed: value for seed, value in found.items() if value is not None}


def first_measured(measurements: Sequence[Measurement], metric: str) -> Measurement | None:
    """Returns the first measurement that has the given metric and has values, or None."""
    return next((one for one in measurements if one.metric == metric and one.values), None)


def _value(
    metric: str, case: Case, other: Case | None, storage: Storage, seed: int
) -> Fraction | None:
    if metric == "img/s":
        speed = (storage.read_training(case.training, seed) or {}).get("images_per_second")
        return None if speed is None else Fraction(speed)
    own = _percent(case, storage, seed)
    if other is None or own is None:
        return own
    theirs = _percent(other, storage, seed)
    return None if theirs is None else own - theirs


def _percent(case: Case, storage: Storage, seed: int) -> Fraction | None:
    result = storage.read_result(case, seed) if case.training else None
    if result is None:
        return None
    value = stored_mean_iou(result, case.row.trimap)
    return None if value is None else Fraction(value) * 100


def stored_mean_iou(result: Mapping[str, Any], trimap: int | None) -> float | None:
    """Returns a mean IoU, 0..1, from the content of `metrics.json`; None if the value is missing.

    Args:
      result: content of `metrics.json`.
      trimap: width of the trimap band in pixels; None: mean IoU of all pixels.
    """
    if trimap is None:
        return result["mean_iou"]
    return (result["trimap_mean_iou"] or {}).get(str(trimap))
