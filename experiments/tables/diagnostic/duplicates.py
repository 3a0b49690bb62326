"""Diagnostic table: effect of using images with rare classes twice per training epoch."""

from experiments.table import Claim, Row, Table

ONCE, TWICE = "every image once", "images with rare classes twice"
TABLE = Table(
    title="Duplicates of the images with the two rarest classes",
    paper="diagnostic",
    number="duplicates",
    recipe="diagnostics:task=rare",
    dataset="diagnostic_rare",
    rows=(
        Row(ONCE),
        Row(TWICE, changes={"data.oversample_classes": ("rare", "very_rare")}),
    ),
    claims=(
        Claim("duplicates of images with rare classes help", "v3, section 4.3", TWICE, ONCE, 1.0),
    ),
    notes="The first row is the training of the first row of diagnostic/rare.",
)
