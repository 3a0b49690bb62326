"""Diagnostic table: ResNet-18 without and with block5, which the cascade of DeepLab v3 adds."""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._resnet import RESNET_18

LABELS = {last: f"up to block{last}" for last in (4, 5)}
TABLE = Table(
    title="Number of blocks of ResNet-18 at output stride 16",
    paper="diagnostic",
    number="blocks",
    recipe="diagnostics:task=scales,steps=200",
    dataset="diagnostic_scales",
    rows=tuple(
        Row(label, changes=RESNET_18 | {"model.cascade_blocks": last, "model.multi_grid": (1, 1)})
        for last, label in LABELS.items()
    ),
    claims=(
        Claim(
            "another block with atrous convolution helps", "v3, table 2", LABELS[5], LABELS[4], 1.0
        ),
    ),
)
