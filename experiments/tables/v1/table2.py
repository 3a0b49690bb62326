"""DeepLab v1, table 2: training speed for several kernel sizes and atrous rates of fc6."""

from experiments.table import Row, Table

TABLE = Table(
    title="Training speed by kernel and rate of fc6",
    paper="v1",
    number="2",
    recipe="deeplab_v1",
    metric="img/s",
    split="train",
    rows=(
        Row("7×7, rate 4", 1.44, recipe="deeplab_v1:fov=7x7"),
        Row("4×4, rate 4", 2.90, recipe="deeplab_v1:fov=4x4"),
        Row("4×4, rate 8", 2.90, recipe="deeplab_v1:fov=4x4,rate=8"),
        Row("3×3, rate 12 (LargeFOV)", 4.84),
    ),
    notes="The published speeds were measured on a GPU of 2014. Compare ratios between rows.",
)
