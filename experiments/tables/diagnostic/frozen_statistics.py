"""Diagnostic table: fine-tuning with batch statistics and with frozen batch normalization."""

from experiments.table import Claim, Row, Table, Training

BEFORE = Training("diagnostics:task=rare")
TRAINED, FROZEN = "statistics of the batches", "frozen statistics"
TABLE = Table(
    title="Batch normalization in fine-tuning from another task",
    paper="diagnostic",
    number="frozen statistics",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=(
        Row(TRAINED, after=BEFORE),
        Row(FROZEN, changes={"model.frozen_batch_norm": True}, after=BEFORE),
    ),
    claims=(Claim("fine-tuning batch normalization helps", "v3, table 8", TRAINED, FROZEN, 1.0),),
    notes=(
        "Both rows start from a network that was trained on `diagnostic_rare` with the same seed, "
        "so prepare both datasets."
    ),
)
