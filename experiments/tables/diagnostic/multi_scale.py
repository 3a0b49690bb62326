"""Diagnostic table: evaluation with several scales and flips."""

from experiments.table import Claim, Row, Table

ONE, SCALES, FLIPS = "one scale", "scales 0.75, 1, 1.25", "scales 0.75, 1, 1.25, flips"
# The first row of diagnostic/scales.
ASPP = {"model.output_stride": 8, "model.atrous_rates": (1, 3, 6)}
SEVERAL, SOURCE = {"scales": (0.75, 1.0, 1.25)}, "v3, tables 4 and 6"
TABLE = Table(
    title="Scales and flips in evaluation",
    paper="diagnostic",
    number="multi-scale",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=(
        Row(ONE, changes=ASPP),
        Row(SCALES, changes=ASPP, inference=SEVERAL),
        Row(FLIPS, changes=ASPP, inference=SEVERAL | {"flip": True}),
    ),
    claims=(
        Claim("several scales in evaluation help", SOURCE, SCALES, ONE, 0.5),
        Claim("flips in evaluation help", SOURCE, FLIPS, SCALES, 0.2),
    ),
    notes="All rows evaluate the training of the first row of diagnostic/scales.",
)
