"""Rows of tables 3 and 5: one network under output strides, scales and flips."""

from collections.abc import Mapping
from typing import Any

from experiments.strategies import FLIP, MULTI_SCALE
from experiments.table import Row

MARKS = {
    "": {},
    ", scales": MULTI_SCALE,
    ", scales, flip": MULTI_SCALE | FLIP,
}


def rows(
    label: str, output_stride: int, values: Mapping[str, tuple[float, float]], **row: Any
) -> tuple[Row, ...]:
    """Returns a row for each strategy.

    Args:
      label: of the network.
      output_stride: of evaluation.
      values: (mean IoU, billions of multiply-adds) by what is added, a key of `MARKS`.
      **row: the network's part of every row.
    """
    return tuple(
        Row(
            f"{label}, evaluated at {output_stride}{mark}",
            mean_iou,
            inference={"output_stride": output_stride} | MARKS[mark],
            costs={"GMAdds": multiply_adds},
            **row,
        )
        for mark, (mean_iou, multiply_adds) in values.items()
    )
