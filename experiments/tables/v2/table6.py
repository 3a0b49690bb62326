"""DeepLab v2, table 6: PASCAL-Context."""

from experiments.strategies import CRF
from experiments.table import Row, Table
from experiments.tables.v2._resnet import (
    AS_STARTED,
    AUGMENTATION_NOTE,
    COCO_NOTE,
    NO_SCALING,
    ON_COCO,
)

CONTEXT = "deeplab_v2:dataset=pascal_context"
VGG, PLAIN = f"{CONTEXT},backbone=vgg_16,head=large_fov", f"{CONTEXT},head=plain"
FULL = {"changes": AS_STARTED, "after": ON_COCO}
TABLE = Table(
    title="PASCAL-Context, 60 classes",
    paper="v2",
    number="6",
    recipe=CONTEXT,
    dataset="PASCAL-Context",
    rows=(
        Row("VGG-16 LargeFOV", 37.6, recipe=VGG),
        Row("VGG-16 LargeFOV + CRF", 39.6, inference=CRF, recipe=VGG),
        Row("ResNet-101", 39.6, NO_SCALING, recipe=f"{PLAIN},msc=false"),
        Row("ResNet-101 MSC", 41.4, NO_SCALING, recipe=PLAIN),
        Row("ResNet-101 MSC, COCO", 42.9, AS_STARTED | NO_SCALING, recipe=PLAIN, after=ON_COCO),
        Row("ResNet-101 LargeFOV, full", 43.5, recipe=f"{CONTEXT},head=large_fov", **FULL),
        Row("ResNet-101 ASPP, full", 44.7, **FULL),
        Row("ResNet-101 ASPP, full + CRF", 45.7, inference=CRF, **FULL),
    ),
    notes=f"{COCO_NOTE} {AUGMENTATION_NOTE}",
)
