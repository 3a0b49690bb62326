"""DeepLab v3+, figure 5: how much the decoder raises mean IoU near object boundaries."""

from experiments.table import Row, Table

RESNET = "deeplab_v3plus:backbone=resnet_101_beta"
BILINEAR = {"model.architecture": "deeplab_v3"}
TABLE = Table(
    title="Mean IoU in the narrowest band around boundaries: decoder against bilinear upsampling",
    paper="v3+",
    number="fig5",
    recipe=RESNET,
    metric="delta mIoU",
    rows=(
        Row("ResNet-101, bilinear", changes=BILINEAR, trimap=1),
        Row("ResNet-101, decoder", 4.8, minus="ResNet-101, bilinear", trimap=1),
        Row(
            "Xception-65, bilinear",
            changes=BILINEAR | {"model.separable": True},
            recipe="deeplab_v3plus",
            trimap=1,
        ),
        Row(
            "Xception-65, decoder",
            5.4,
            minus="Xception-65, bilinear",
            recipe="deeplab_v3plus",
            trimap=1,
        ),
    ),
    notes="The paper does not state the width of its narrowest band; here it is 1 pixel.",
)
