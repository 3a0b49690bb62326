"""DeepLab v3, table 10: output strides of training and evaluation."""

from experiments.table import Row, Table

# For each output stride of training: batch size, and mean IoU at output strides 16 and 8 of the
# evaluation.
VALUES = {8: (6, 74.45, 75.62), 16: (16, 77.21, 78.51), 32: (24, 75.90, 75.75)}
TABLE = Table(
    title="Output strides of training and evaluation",
    paper="v3",
    number="10",
    recipe="deeplab_v3",
    rows=tuple(
        Row(
            f"trained at {trained}, evaluated at {evaluated}",
            value,
            {"model.output_stride": trained, "training.batch_size": batch_size},
            {"output_stride": evaluated},
        )
        for trained, (batch_size, *values) in VALUES.items()
        for evaluated, value in zip((16, 8), values, strict=True)
    ),
    notes="The batch sizes are 6, 16 and 24, limited by the memory of the paper's GPUs.",
)
