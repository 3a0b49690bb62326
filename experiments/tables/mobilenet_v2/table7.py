"""MobileNetV2, table 7: DeepLab v3 with mobile backbones, pretrained on COCO."""

from collections.abc import Mapping

from experiments.strategies import AT_8, FLIP, MULTI_SCALE
from experiments.table import Row, Table, Training

ALL = AT_8 | MULTI_SCALE | FLIP
# (label, recipe for VOC, recipe for COCO, millions of parameters, values of the first row, values
# of the second row). Values are (mean IoU, billions of multiply-adds). The first row is evaluated
# at output stride 16, the second at output stride 8 with scales and flips.
NETWORKS = (
    (
        "MobileNetV2, ASPP",
        "mobilenet:aspp,from_coco",
        "mobilenet:aspp,dataset=coco_voc",
        4.52,
        (75.70, 5.8),
        (78.42, 387.0),
    ),
    (
        "MobileNetV2",
        "mobilenet:from_coco",
        "mobilenet:dataset=coco_voc",
        2.11,
        (75.32, 2.75),
        (77.33, 152.6),
    ),
    (
        "ResNet-101, ASPP",
        "deeplab_v3:from_coco",
        "deeplab_v3:dataset=coco_voc",
        58.16,
        (80.49, 81.0),
        (82.70, 4870.6),
    ),
)


def costs(multiply_adds: float, parameters: float) -> Mapping[str, float]:
    """Returns the published costs of a row, by name of the metric.

    Args:
      multiply_adds: number of multiply-adds, in billions.
      parameters: number of parameters, in millions.
    """
    return {"GMAdds": multiply_adds, "Mparams": parameters}


TABLE = Table(
    title="DeepLab v3 with mobile backbones",
    paper="MNv2",
    number="7",
    recipe="mobilenet",
    rows=tuple(
        Row(
            f"{label}, {mark}",
            mean_iou,
            inference=inference,
            costs=costs(multiply_adds, parameters),
            recipe=recipe,
            after=Training(before),
        )
        for label, recipe, before, parameters, *values in NETWORKS
        for mark, inference, (mean_iou, multiply_adds) in zip(
            ("output stride 16", "output stride 8, scales, flip"), ({}, ALL), values, strict=True
        )
    ),
    notes="The rows of MobileNetV1 are left out: this backbone is not supported.",
)
