"""DeepLab v2, table 9: Cityscapes."""

from experiments.strategies import CRF
from experiments.table import Row, Table
from experiments.tables.v2._resnet import NO_SCALING

CITYSCAPES = "deeplab_v2:dataset=cityscapes"
VGG = f"{CITYSCAPES},backbone=vgg_16,head=large_fov"
# Rows of half size: images of 1024 × 2048 pixels are downsampled, and predictions are upsampled.
HALF = {"augmentation.min_resize": 512, "augmentation.max_resize": 1024}
AT_HALF = {"scales": (0.5,)}
TABLE = Table(
    title="Cityscapes val, after training on the fine annotations",
    paper="v2",
    number="9",
    recipe=CITYSCAPES,
    dataset="Cityscapes",
    rows=(
        Row("VGG-16 LargeFOV, half size", 62.97, HALF, AT_HALF, recipe=VGG),
        Row("VGG-16 LargeFOV, half size + CRF", 64.18, HALF, AT_HALF | CRF, recipe=VGG),
        Row("VGG-16 LargeFOV", 64.89, recipe=VGG),
        Row("VGG-16 LargeFOV + CRF", 65.94, inference=CRF, recipe=VGG),
        Row("ResNet-101", 66.6, NO_SCALING, recipe=f"{CITYSCAPES},head=plain"),
        Row("ResNet-101 LargeFOV", 69.2, NO_SCALING, recipe=f"{CITYSCAPES},head=large_fov"),
        Row("ResNet-101 ASPP", 70.4, NO_SCALING),
        Row("ResNet-101 ASPP, scaling", 71.0),
        Row("ResNet-101 ASPP, scaling + CRF", 71.4, inference=CRF),
    ),
    notes="The authors predict overlapping tiles of the images. Here, whole images are predicted.",
)
