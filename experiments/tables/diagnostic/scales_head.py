"""Diagnostic table: ASPP with three rates, one rate or none, on features of a frozen backbone."""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._frozen import BEFORE, FROZEN, NOTES
from experiments.tables.diagnostic.scales import ASPP, PLAIN, ROWS, SINGLE, SOURCE

TABLE = Table(
    title="Rates of ASPP on frozen features, on objects whose size varies by a factor of 16",
    paper="diagnostic",
    number="scales, head",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=tuple(
        Row(label, changes=FROZEN | {"model.atrous_rates": rates}, after=BEFORE)
        for label, rates in ROWS.items()
    ),
    claims=(
        Claim("on frozen features, ASPP beats a 1×1 convolution", SOURCE, ASPP, PLAIN, 2.0),
        *(
            Claim(f"on frozen features, ASPP beats {label} alone", SOURCE, ASPP, label, 1.0)
            for label in SINGLE
        ),
    ),
    notes=NOTES,
)
