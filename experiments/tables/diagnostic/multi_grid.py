"""Diagnostic table: multi-grid in block4 of ResNet-18."""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._resnet import RESNET_18

PLAIN, GRID = "multi-grid (1, 1)", "multi-grid (1, 2)"
TABLE = Table(
    title="Multi-grid in block4 of ResNet-18 at output stride 16",
    paper="diagnostic",
    number="multi-grid",
    recipe="diagnostics:task=scales,steps=200",
    dataset="diagnostic_scales",
    rows=tuple(
        Row(label, changes=RESNET_18 | {"model.cascade_blocks": 4, "model.multi_grid": rates})
        for label, rates in {PLAIN: (1, 1), GRID: (1, 2)}.items()
    ),
    claims=(Claim("multi-grid in block4 helps", "v3, table 3", GRID, PLAIN, 1.0),),
    notes=(
        "Block4 of ResNet-18 has two units, with rates of 2 and 4 on a map of 7 × 7. Larger "
        "multi-grids would use the centers of the filters alone."
    ),
)
