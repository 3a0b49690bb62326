"""What the numbers of a run so far say of going on."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Row = Mapping[str, float]
VALIDATION = "validation_mean_iou"
# Validations in a row, none of them a new best, over which a training loss that falls is a warning.
PARTING = 3


class Interval(NamedTuple):
    """The steps up to a validation.

    Attributes:
      step: of the validation.
      mean_iou: that it found.
      loss: mean training loss since the validation before; None where none was written.
    """

    step: int
    mean_iou: float
    loss: float | None


def intervals(rows: Iterable[Row]) -> list[Interval]:
    """Returns the validations among the rows of a run, with what training did before each."""
    found: list[Interval] = []
    losses: list[float] = []
    for row in rows:
        if VALIDATION in row:
            loss = sum(losses) / len(losses) if losses else None
            found.append(Interval(int(row["step"]), row[VALIDATION], loss))
            losses = []
        elif "loss" in row:
            losses.append(row["loss"])
    return found


def validations_since_best(rows: Iterable[Row]) -> int:
    """Returns how many validations have come after the best one; 0 without any.

    A validation whose mean IoU is NaN, for lack of labeled pixels, is worse than any other.
    """
    return _since_best(intervals(rows))


def curves_part(rows: Iterable[Row]) -> str | None:
    """Returns a warning where training goes on improving and validation does not; else None."""
    found = intervals(rows)
    since = _since_best(found)
    losses = [interval.loss for interval in found[-PARTING - 1 :]]
    if since != PARTING or None in losses or not _falling(losses):
        return None
    best = found[-1 - since]
    if math.isnan(best.mean_iou):
        return None
    return (
        f"training and validation part: the training loss fell from {losses[0]:.4g} to "
        f"{losses[-1]:.4g}, but validation was best ({best.mean_iou:.4f}) at step {best.step}; "
        "the network may be learning its images by heart: more augmentation, dropout or weight "
        "decay, or training.patience to stop"
    )


def _since_best(found: Sequence[Interval]) -> int:
    # Not even NaN equals NaN, so max() would return it wherever it stands first.
    scores = [-math.inf if math.isnan(each.mean_iou) else each.mean_iou for each in found]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def _falling(values: Sequence[float]) -> bool:
    return all(later < earlier for earlier, later in itertools.pairwise(values))
