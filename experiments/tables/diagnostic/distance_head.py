"""Diagnostic table: atrous rates of a head on frozen features.

The class of each object depends on a cue 80 pixels away from the object.
"""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._frozen import BEFORE, FROZEN, NOTES
from experiments.tables.diagnostic.distance import COVERED, TOO_LARGE

NEAR, COVERING, BEYOND = "rate 1 (8 px)", "rate 10 (80 px)", "rate 24 (192 px)"
RATES = {NEAR: 1, COVERING: 10, BEYOND: 24}
LARGE_IMAGES = {"augmentation.crop_size": (193, 193)}
TABLE = Table(
    title="Atrous rate of a head on frozen features, with the cue at a distance of 80 pixels",
    paper="diagnostic",
    number="distance, head",
    recipe="diagnostics:task=distance",
    dataset="diagnostic_distance",
    rows=tuple(
        Row(label, changes=FROZEN | LARGE_IMAGES | {"model.atrous_rates": (rate,)}, after=BEFORE)
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
    notes=(
        "Prepare the dataset with `prepare diagnostic_distance --size=193 --distance=80`, in "
        f"another directory than for the table `distance`. {NOTES} Depthwise convolutions of the "
        "backbone have offsets of at most 32 pixels, so its features reach a cue at 36 pixels more "
        "easily than one at 80 pixels."
    ),
)
