"""Diagnostic table: batch size of training, with a fixed number of steps."""

from experiments.table import Claim, Row, Table

LABELS = {size: f"batch {size}" for size in (4, 16)}
TABLE = Table(
    title="Batch size with a fixed number of steps",
    paper="diagnostic",
    number="batch size",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=tuple(Row(label, changes={"training.batch_size": size}) for size, label in LABELS.items()),
    claims=(Claim("a larger batch helps", "v3, table 9", LABELS[16], LABELS[4], 3.0),),
    notes=(
        "As in the paper, the number of steps is fixed, so that a larger batch means more images, "
        "and more accurate statistics."
    ),
)
