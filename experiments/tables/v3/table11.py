"""DeepLab v3, table 11: number of devices in training."""

from experiments.table import Row, Table

VALUES = {1: 77.21, 2: 77.15, 4: 76.79, 8: 77.02, 16: 77.18}
TABLE = Table(
    title="Number of devices in training",
    paper="v3",
    number="11",
    recipe="deeplab_v3",
    rows=tuple(
        Row(f"{count} device{'s' * (count > 1)}", value, devices=count)
        for count, value in VALUES.items()
    ),
    notes=(
        "The replicas of the paper trained asynchronously, each on batches of its own. Here, one "
        "batch of 16 is sharded over the devices, so all rows should have equal results."
    ),
)
