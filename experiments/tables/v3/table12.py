"""DeepLab v3, table 12: Cityscapes."""

from experiments.strategies import AT_8, CITYSCAPES_SCALES, FLIP
from experiments.table import Row, Table

SCALES = {"scales": CITYSCAPES_SCALES}
TABLE = Table(
    title="Cityscapes val, ResNet-101 with ASPP, trained on the fine annotations",
    paper="v3",
    number="12",
    recipe="deeplab_v3:dataset=cityscapes",
    dataset="Cityscapes",
    rows=(
        Row("output stride 16", 77.23),
        Row("output stride 8", 77.82, inference=AT_8),
        Row("output stride 8, scales", 79.06, inference=AT_8 | SCALES),
        Row("output stride 8, scales, flip", 79.30, inference=AT_8 | SCALES | FLIP),
    ),
    notes="All rows evaluate the same network, which is trained at output stride 16.",
)
