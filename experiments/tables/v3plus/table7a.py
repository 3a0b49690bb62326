"""DeepLab v3+, table 7 (a): Cityscapes."""

from experiments.table import Row, Table

POOLING = {"model.image_pooling": "crop"}
TABLE = Table(
    title="Cityscapes val, after training on the fine annotations",
    paper="v3+",
    number="7a",
    recipe="deeplab_v3plus:dataset=cityscapes",
    dataset="Cityscapes",
    rows=(
        Row(
            "Xception-65, image pooling, no decoder",
            77.33,
            # The atrous branches are separable, as in the other rows.
            POOLING | {"model.architecture": "deeplab_v3", "model.separable": True},
        ),
        Row("Xception-65, image pooling, decoder", 78.79, POOLING),
        Row("Xception-65, decoder", 79.14),
        Row(
            "Xception-71, decoder",
            79.55,
            recipe="deeplab_v3plus:dataset=cityscapes,backbone=xception_71",
        ),
    ),
)
