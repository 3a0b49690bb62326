"""DeepLab v3, table 4: inference strategies of the best cascade."""

from experiments.table import Row, Table
from experiments.tables.v3._shared import STEPS

VALUES = (76.66, 78.05, 78.93, 79.35)
TABLE = Table(
    title="Inference strategies, ResNet-101 with block7 and multi-grid (1, 2, 1)",
    paper="v3",
    number="4",
    recipe="deeplab_v3:head=cascade",
    rows=tuple(
        Row(label, value, inference=inference)
        for (label, inference), value in zip(STEPS, VALUES, strict=True)
    ),
    notes="All rows evaluate the same network, which is trained at output stride 16.",
)
