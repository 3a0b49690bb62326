"""DeepLab v3, table 6: inference strategies of the best ASPP, and training on COCO."""

from experiments.table import Row, Table, Training
from experiments.tables.v3._shared import STEPS

VALUES = (77.21, 78.51, 79.45, 79.77)
_, ALL = STEPS[-1]
TABLE = Table(
    title="Inference strategies, ResNet-101 with ASPP, multi-grid (1, 2, 4) and image pooling",
    paper="v3",
    number="6",
    recipe="deeplab_v3",
    rows=(
        *(
            Row(label, value, inference=inference)
            for (label, inference), value in zip(STEPS, VALUES, strict=True)
        ),
        Row(
            "output stride 8, scales, flip, COCO",
            82.70,
            inference=ALL,
            recipe="deeplab_v3:from_coco",
            after=Training("deeplab_v3:dataset=coco_voc"),
        ),
    ),
    notes="The first four rows evaluate the same network, which is trained at output stride 16.",
)
