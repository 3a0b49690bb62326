"""DeepLab v2, table 7: PASCAL-Person-Part."""

from experiments.strategies import CRF
from experiments.table import Row, Table
from experiments.tables.v2._resnet import (
    AS_STARTED,
    AUGMENTATION_NOTE,
    COCO_NOTE,
    NO_SCALING,
    ON_COCO,
)

PARTS = "deeplab_v2:dataset=pascal_person_part"
PLAIN = f"{PARTS},head=plain"
FROM_COCO = {"changes": AS_STARTED | NO_SCALING, "recipe": PLAIN, "after": ON_COCO}
FULL = {"changes": AS_STARTED, "after": ON_COCO}
TABLE = Table(
    title="PASCAL-Person-Part, 7 classes, ResNet-101",
    paper="v2",
    number="7",
    recipe=PARTS,
    dataset="Person-Part",
    rows=(
        Row("plain", 58.90, NO_SCALING, recipe=f"{PLAIN},msc=false"),
        Row("MSC", 63.10, NO_SCALING, recipe=PLAIN),
        Row("MSC, COCO", 64.40, **FROM_COCO),
        Row("MSC, COCO + CRF", 64.94, inference=CRF, **FROM_COCO),
        Row("MSC, COCO, LargeFOV", 62.18, recipe=f"{PARTS},head=large_fov", **FULL),
        Row("MSC, COCO, ASPP", 62.76, **FULL),
    ),
    notes=f"{COCO_NOTE} {AUGMENTATION_NOTE}",
)
