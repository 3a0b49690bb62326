"""MobileNetV2's table 7: DeepLab v3 on mobile networks, after COCO."""

from collections.abc import Mapping

from experiments.strategies import AT_8, FLIP, MULTI_SCALE
from experiments.table import Row, Table, Training

ALL = AT_8 | MULTI_SCALE | FLIP
# (label, recipe of the training on VOC, recipe of that on COCO, parameters,
#  without and with scales and flips: mean IoU, multiply-adds)
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
    """Returns a row's costs in billions and millions."""
    return {"GMAdds": multiply_adds, "Mparams": parameters}


TABLE = Table(
    title="DeepLab v3 on mobile networks",
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
    notes="The rows of MobileNetV1 are left out: that backbone is not here.",
)
