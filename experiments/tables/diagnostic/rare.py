"""Diagnostic table: loss functions for a dataset with rare classes."""

from experiments.table import Claim, Row, Table

PLAIN = "cross-entropy"
# Inverse square root of the frequency of each class, divided by that of the background.
WEIGHTS = (1.0, 2.3, 4.8, 9.0, 17.0)
LOSSES = {
    "class weights": {"loss.class_weights": WEIGHTS},
    "cross-entropy and Dice": {"loss.dice": 1.0},
    "cross-entropy and Lovász": {"loss.lovasz": 1.0},
    "focal loss": {"loss.cross_entropy": 0.0, "loss.focal": 1.0},
}
SOURCE = "v3, section 4.3 (rare classes are duplicated); losses of other papers"
TABLE = Table(
    title="Losses, with classes that each have a quarter of the pixels of the previous class",
    paper="diagnostic",
    number="rare",
    recipe="diagnostics:task=rare",
    dataset="diagnostic_rare",
    rows=(Row(PLAIN), *(Row(label, changes=changes) for label, changes in LOSSES.items())),
    claims=tuple(
        Claim(f"{label}: higher mean IoU than {PLAIN}", SOURCE, label, PLAIN, 2.0)
        for label in LOSSES
    ),
)
