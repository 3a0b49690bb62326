"""Diagnostic table: loss on upsampled logits or downsampled labels, on images of thin lines."""

from experiments.table import Claim, Row, Table

UPSAMPLED, DOWNSAMPLED = "upsampled logits", "downsampled labels"
TABLE = Table(
    title="Resolution of the loss at output stride 8, on lines of one to three pixels",
    paper="diagnostic",
    number="upsampled logits",
    recipe="diagnostics:task=thin",
    dataset="diagnostic_thin",
    rows=(
        Row(UPSAMPLED, changes={"model.output_stride": 8}),
        Row(DOWNSAMPLED, changes={"model.output_stride": 8, "loss.upsample_logits": False}),
    ),
    claims=(
        Claim(
            "upsampling the logits beats downsampling the labels",
            "v3, table 8",
            UPSAMPLED,
            DOWNSAMPLED,
            3.0,
        ),
    ),
    notes="The first row is the training of the row of output stride 8 of diagnostic/thin.",
)
