"""MobileNetV2, table 7: DeepLab v3 with mobile backbones, pretrained on COCO."""

from collections.abc import Mapping

from experiments.strategies import AT_8, FLIP, MULTI_SCALE
from experiments.table import Row, Table, Training

ALL = AT_8 | MULTI_SCALE | FLIP
# (label, recipe of the training on VOC, recipe of the training on COCO, millions of parameters,
#  (mean IoU, billions of multiply-adds) without scales and flips, the same with them)
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
    """Returns the costs of a row by metric."""
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
