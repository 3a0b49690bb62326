"""Ablation family 5: heads of v1, v2, v3 and v3+ with the same backbone and the same training."""

from experiments.table import Row, Table

TABLE = Table(
    title="LargeFOV, summed ASPP, ASPP with image pooling, and decoder, with equal training",
    paper="own",
    number="family 5",
    recipe="deeplab_v3plus:backbone=resnet_101_beta",
    rows=(
        Row(
            "v1: LargeFOV",
            changes={
                "model.architecture": "deeplab_v1",
                "model.multi_grid": None,
                "model.image_pooling": "none",
            },
        ),
        Row(
            "v2: summed ASPP",
            changes={
                "model.architecture": "deeplab_v2",
                "model.multi_grid": None,
                "model.image_pooling": "none",
            },
        ),
        Row("v3: ASPP, image pooling", changes={"model.architecture": "deeplab_v3"}),
        Row("v3+: ASPP, image pooling, decoder"),
    ),
    notes="All rows run at output stride 16. At this stride, the atrous rates of v1 and v2 are "
    "half of those in the papers, which use output stride 8.",
)
