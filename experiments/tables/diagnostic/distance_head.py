"""Diagnostic table: atrous rates of a head on frozen features, with the cue 36 pixels away."""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._frozen import BEFORE, FROZEN, NOTES
from experiments.tables.diagnostic.distance import (
    BEYOND,
    COVERED,
    COVERING,
    NEAR,
    RATES,
    TOO_LARGE,
)

TABLE = Table(
    title="Atrous rate of a head on frozen features, with the cue at a distance of 36 pixels",
    paper="diagnostic",
    number="distance, head",
    recipe="diagnostics:task=distance",
    dataset="diagnostic_distance",
    rows=tuple(
        Row(label, changes=FROZEN | {"model.atrous_rates": (rate,)}, after=BEFORE)
        for label, rate in RATES.items()
    ),
    claims=(
        Claim(
            "on frozen features, a rate that reaches the cue beats a rate that does not",
            COVERED,
            COVERING,
            NEAR,
            10.0,
        ),
        Claim(
            "on frozen features, a rate that reaches the cue beats a rate as large as the map",
            TOO_LARGE,
            COVERING,
            BEYOND,
            10.0,
        ),
    ),
    notes=f"Prepare the dataset with `prepare diagnostic_distance --distance=36`. {NOTES}",
)
