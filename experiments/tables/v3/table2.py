"""DeepLab v3, table 2: number of blocks in the cascade, with ResNet-50 and ResNet-101."""

from experiments.table import Row, Table
from experiments.tables.v3._shared import blocks, multi_grid

VALUES = {"50": (64.81, 72.14, 74.29, 73.88), "101": (68.39, 73.21, 75.34, 75.76)}
TABLE = Table(
    title="Number of blocks in the cascade at output stride 16",
    paper="v3",
    number="2",
    recipe="deeplab_v3:backbone=resnet_101_beta,head=cascade",
    rows=tuple(
        Row(
            f"ResNet-{depth}, block{last}",
            value,
            multi_grid(1, 1, 1) | blocks(last),
            recipe=f"deeplab_v3:backbone=resnet_{depth}_beta,head=cascade",
        )
        for depth, values in VALUES.items()
        for last, value in enumerate(values, start=4)
    ),
)
