"""DeepLab v2, table 4: contribution of each part of the ResNet-101 network."""

from experiments.strategies import CRF
from experiments.table import Row, Table
from experiments.tables.v2._resnet import AS_STARTED, COCO_NOTE, NO_SCALING, ON_COCO

FULL = {"changes": AS_STARTED, "after": ON_COCO}
TABLE = Table(
    title="ResNet-101: multi-scale inputs, COCO, scaled images, LargeFOV, ASPP, CRF",
    paper="v2",
    number="4",
    recipe="deeplab_v2:head=plain",
    rows=(
        Row("plain", 68.72, NO_SCALING, recipe="deeplab_v2:head=plain,msc=false"),
        Row("MSC", 71.27, NO_SCALING),
        Row("MSC, COCO", 73.28, AS_STARTED | NO_SCALING, after=ON_COCO),
        Row("MSC, COCO, scaling", 74.87, **FULL),
        Row("MSC, COCO, scaling, LargeFOV", 75.54, recipe="deeplab_v2:head=large_fov", **FULL),
        Row("MSC, COCO, scaling, ASPP", 76.35, recipe="deeplab_v2", **FULL),
        Row("MSC, COCO, scaling, ASPP + CRF", 77.69, inference=CRF, recipe="deeplab_v2", **FULL),
    ),
    notes=COCO_NOTE,
)
