"""DeepLab v3, table 11: number of machines that train together."""

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
        "The paper's replicas worked asynchronously, each on batches of its own. Here devices "
        "share one batch of 16, so that their number should not matter at all."
    ),
)
