"""DeepLab v3, table 3: multi-grid in cascades of ResNet-101."""

from experiments.table import Row, Table
from experiments.tables.v3._shared import blocks, multi_grid

VALUES = {
    (1, 1, 1): (68.39, 73.21, 75.34, 75.76),
    (1, 2, 1): (70.23, 75.67, 76.09, 76.66),
    (1, 2, 3): (73.14, 75.78, 75.96, 76.11),
    (1, 2, 4): (73.45, 75.74, 75.85, 76.02),
    (2, 2, 2): (71.45, 74.30, 74.70, 74.62),
}
TABLE = Table(
    title="Multi-grid and number of blocks of ResNet-101 at output stride 16",
    paper="v3",
    number="3",
    recipe="deeplab_v3:head=cascade",
    rows=tuple(
        Row(f"multi-grid {rates}, block{last}", value, multi_grid(*rates) | blocks(last))
        for rates, values in VALUES.items()
        for last, value in enumerate(values, start=4)
    ),
)
