"""Diagnostic table: atrous rates for objects whose class depends on a cue 36 pixels away."""

from experiments.table import Claim, Row, Table

NEAR, COVERING, BEYOND = "rate 1 (8 px)", "rate 4 (32 px)", "rate 12 (96 px)"
RATES = {NEAR: 1, COVERING: 4, BEYOND: 12}
# Rates 4 and 8 of the 4×4 kernel, and the degenerate filters of ASPP.
COVERED, TOO_LARGE = "v2, table 1", "v3, section 3.3 and table 5"
TABLE = Table(
    title="Atrous rate at output stride 8, with the cue at a distance of 36 pixels",
    paper="diagnostic",
    number="distance",
    recipe="diagnostics:task=distance",
    dataset="diagnostic_distance",
    rows=tuple(
        Row(label, changes={"model.output_stride": 8, "model.atrous_rates": (rate,)})
        for label, rate in RATES.items()
    ),
    claims=(
        Claim(
            "a rate that reaches the cue beats a rate that does not", COVERED, COVERING, NEAR, 10.0
        ),
        Claim(
            "a rate that reaches the cue beats a rate as large as the feature map",
            TOO_LARGE,
            COVERING,
            BEYOND,
            10.0,
        ),
    ),
    notes=(
        "Prepare the dataset with `prepare diagnostic_distance --distance=36`. On a feature map of "
        "13 × 13, a filter at rate 12 uses only its center at most positions."
    ),
)
