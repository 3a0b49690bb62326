"""Many scales: ASPP against each of its rates alone, and against a 1×1 convolution."""

from experiments.table import Claim, Row, Table

ASPP, PLAIN = "rates 1, 3, 6", "1×1 only"
SINGLE = {"rate 1": (1,), "rate 3": (3,), "rate 6": (6,)}
SOURCE = "v2, table 2, page 8; v3, table 5, page 6"
ROWS = {ASPP: (1, 3, 6), PLAIN: (), **SINGLE}
TABLE = Table(
    title="Several rates and one, on objects over a 16-fold range of sizes",
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
