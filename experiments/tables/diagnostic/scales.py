"""Diagnostic table: ASPP with three rates, one rate or none, for objects of many sizes."""

from experiments.table import Claim, Row, Table

ASPP, PLAIN = "rates 1, 3, 6", "1×1 only"
SINGLE = {"rate 1": (1,), "rate 3": (3,), "rate 6": (6,)}
SOURCE = "v2, tables 3 and 4"
ROWS = {ASPP: (1, 3, 6), PLAIN: (), **SINGLE}
TABLE = Table(
    title="Rates of ASPP, on objects whose size varies by a factor of 16",
    paper="diagnostic",
    number="scales",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=tuple(
        Row(label, changes={"model.output_stride": 8, "model.atrous_rates": rates})
        for label, rates in ROWS.items()
    ),
    claims=(
        Claim("ASPP beats a 1×1 convolution", SOURCE, ASPP, PLAIN, 2.0),
        *(Claim(f"ASPP beats {label} alone", SOURCE, ASPP, label, 1.0) for label in SINGLE),
    ),
)
