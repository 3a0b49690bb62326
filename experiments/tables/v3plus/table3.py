"""DeepLab v3+, table 3: decoder and inference strategies on ResNet-101."""

from experiments.table import Table
from experiments.tables.v3plus._strategies import rows

PLAIN = {"recipe": "deeplab_v3"}
AT_32 = {"model.output_stride": 32}
TABLE = Table(
    title="Inference strategies on ResNet-101, without and with decoder",
    paper="v3+",
    number="3",
    recipe="deeplab_v3plus:backbone=resnet_101_beta",
    rows=(
        *rows("no decoder", 16, {"": (77.21, 81.02)}, **PLAIN),
        *rows(
            "no decoder",
            8,
            {
                "": (78.51, 276.18),
                ", scales": (79.45, 2435.37),
                ", scales, flip": (79.77, 4870.59),
            },
            **PLAIN,
        ),
        *rows(
            "decoder",
            16,
            {
                "": (78.85, 101.28),
                ", scales": (80.09, 898.69),
                ", scales, flip": (80.22, 1797.23),
            },
        ),
        *rows(
            "decoder",
            8,
            {
                "": (79.35, 297.92),
                ", scales": (80.43, 2623.61),
                ", scales, flip": (80.57, 5247.07),
            },
        ),
        *rows("no decoder, trained at 32", 32, {"": (75.43, 52.43)}, changes=AT_32, **PLAIN),
        *rows("decoder, trained at 32", 32, {"": (77.37, 74.20)}, changes=AT_32),
        *rows("decoder, trained at 32", 16, {"": (77.80, 101.28)}, changes=AT_32),
        *rows("decoder, trained at 32", 8, {"": (77.92, 297.92)}, changes=AT_32),
    ),
    notes="The published 101.28 billion multiply-adds contradict other rows (multiply_adds.csv).",
)
