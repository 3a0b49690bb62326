"""DeepLab v3+, table 5: decoder, separable convolutions and COCO with Xception-65."""

from experiments.table import Table, Training
from experiments.tables.v3plus._strategies import rows

REGULAR = {"recipe": "deeplab_v3plus:separable=false"}
COCO = {
    "recipe": "deeplab_v3plus:from_coco",
    "after": Training("deeplab_v3plus:dataset=coco_voc"),
}
# Without its decoder, DeepLab v3+ is DeepLab v3 with an Xception backbone.
NO_DECODER = REGULAR | {"changes": {"model.architecture": "deeplab_v3"}}
SCALES, ALL = ", scales", ", scales, flip"
TABLE = Table(
    title="Xception-65, trained at output stride 16",
    paper="v3+",
    number="5",
    recipe="deeplab_v3plus",
    rows=(
        *rows(
            "no decoder",
            16,
            {"": (79.17, 68.00), SCALES: (80.57, 601.74), ALL: (80.79, 1203.34)},
            **NO_DECODER,
        ),
        *rows(
            "no decoder",
            8,
            {"": (79.64, 240.85), SCALES: (81.15, 2149.91), ALL: (81.34, 4299.68)},
            **NO_DECODER,
        ),
        *rows(
            "decoder",
            16,
            {"": (79.93, 89.76), SCALES: (81.38, 790.12), ALL: (81.44, 1580.10)},
            **REGULAR,
        ),
        *rows(
            "decoder",
            8,
            {"": (80.22, 262.59), SCALES: (81.60, 2338.15), ALL: (81.63, 4676.16)},
            **REGULAR,
        ),
        *rows("decoder, separable", 16, {"": (79.79, 54.17), ALL: (81.21, 928.81)}),
        *rows("decoder, separable", 8, {"": (80.02, 177.10), ALL: (81.39, 3055.35)}),
        *rows("decoder, separable, COCO", 16, {"": (82.20, 54.17), ALL: (83.34, 928.81)}, **COCO),
        *rows("decoder, separable, COCO", 8, {"": (82.45, 177.10), ALL: (83.58, 3055.35)}, **COCO),
    ),
    notes="The rows with JFT-300M are left out: this dataset is not public.",
)
