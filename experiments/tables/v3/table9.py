"""DeepLab v3, table 9: batch size."""

from experiments.table import Row, Table

VALUES = {4: 64.43, 8: 75.76, 12: 76.49, 16: 77.21}
TABLE = Table(
    title="Batch size in training",
    paper="v3",
    number="9",
    recipe="deeplab_v3",
    rows=tuple(
        Row(f"batch {size}", value, {"training.batch_size": size}) for size, value in VALUES.items()
    ),
)
