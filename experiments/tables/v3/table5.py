"""DeepLab v3, table 5: multi-grid, rates and image pooling of ASPP."""

from experiments.table import Row, Table
from experiments.tables.v3._shared import NO_POOLING, multi_grid

TABLE = Table(
    title="Atrous spatial pyramid pooling with multi-grid and image pooling, ResNet-101",
    paper="v3",
    number="5",
    recipe="deeplab_v3",
    rows=(
        Row("multi-grid (1, 1, 1), rates 6, 12, 18", 75.36, multi_grid(1, 1, 1) | NO_POOLING),
        Row("multi-grid (1, 2, 1), rates 6, 12, 18", 75.93, multi_grid(1, 2, 1) | NO_POOLING),
        Row("multi-grid (1, 2, 4), rates 6, 12, 18", 76.58, NO_POOLING),
        Row(
            "multi-grid (1, 2, 4), rates 6, 12, 18, 24",
            76.46,
            NO_POOLING | {"model.atrous_rates": (6, 12, 18, 24)},
        ),
        Row("multi-grid (1, 2, 4), rates 6, 12, 18, image pooling", 77.21),
    ),
)
