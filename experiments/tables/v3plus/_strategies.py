"""Rows of tables 3 and 5, which evaluate one network with several inference strategies."""

from collections.abc import Mapping
from typing import Any

from experiments.strategies import FLIP, MULTI_SCALE
from experiments.table import Row

# Inference strategies, by the text that they add to the label of a row.
MARKS = {
    "": {},
    ", scales": MULTI_SCALE,
    ", scales, flip": MULTI_SCALE | FLIP,
}


def rows(
    label: str, output_stride: int, values: Mapping[str, tuple[float, float]], **row: Any
) -> tuple[Row, ...]:
    """Returns one row per inference strategy.

    Args:
      label: label of the network, with which the labels of the rows start.
      output_stride: output stride of the evaluation.
      values: {strategy: (published mean IoU in %, published billions of multiply-adds)}. The
        strategy is "", ", scales" or ", scales, flip", with which the label of its row ends.
      **row: further fields of `Row`, which describe the network.
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
