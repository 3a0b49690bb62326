"""Ablation family 3: inference strategies of one trained network."""

from experiments.strategies import AT_8, CRF, FLIP, MULTI_SCALE
from experiments.table import Row, Table

TABLE = Table(
    title="Output stride, scales, flip and CRF of one network trained at output stride 16",
    paper="own",
    number="family 3",
    recipe="deeplab_v3",
    rows=(
        Row("output stride 16"),
        Row("output stride 8", inference=AT_8),
        Row("output stride 8, scales", inference=AT_8 | MULTI_SCALE),
        Row("output stride 8, scales, flip", inference=AT_8 | MULTI_SCALE | FLIP),
        Row("output stride 8, scales, flip, CRF", inference=AT_8 | MULTI_SCALE | FLIP | CRF),
    ),
    notes="In DeepLab v3 (table 6), each of these steps helps; the paper does not use a CRF.",
)
