"""DeepLab v3, table 1: output stride of ResNet-50 with block7."""

from experiments.table import Row, Table
from experiments.tables.v3._shared import multi_grid

VALUES = {8: 75.18, 16: 73.88, 32: 70.06, 64: 59.99, 128: 42.34, 256: 20.29}
TABLE = Table(
    title="Output stride of ResNet-50 with block7",
    paper="v3",
    number="1",
    recipe="deeplab_v3:backbone=resnet_50_beta,head=cascade",
    rows=tuple(
        Row(
            f"output stride {stride}",
            value,
            multi_grid(1, 1, 1) | {"model.output_stride": stride},
        )
        for stride, value in VALUES.items()
    ),
    notes="Each network is evaluated at the output stride of its training.",
)
