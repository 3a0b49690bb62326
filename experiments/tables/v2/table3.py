"""DeepLab v2, table 3: ASPP on VGG-16."""

from experiments.strategies import CRF
from experiments.table import Row, Table

VGG = "deeplab_v2:backbone=vgg_16"
HEADS = (
    ("LargeFOV", "large_fov", 65.76, 69.84),
    ("ASPP-S (2, 4, 8, 12)", "aspp_small", 66.98, 69.73),
    ("ASPP-L (6, 12, 18, 24)", "aspp_large", 68.96, 71.57),
)
TABLE = Table(
    title="Atrous spatial pyramid pooling on VGG-16, before and after the CRF",
    paper="v2",
    number="3",
    recipe=VGG,
    rows=tuple(
        Row(
            label + mark,
            value,
            inference=inference,
            recipe=f"deeplab_v2:backbone=vgg_16,head={head}",
        )
        for label, head, plain, refined in HEADS
        for mark, value, inference in (("", plain, {}), (" + CRF", refined, CRF))
    ),
    notes="LargeFOV is the last row of table 2, trained again by the authors.",
)
