"""Diagnostic table: number of training steps."""

from experiments.table import Claim, Row, Table

LONG, SHORT = "400 steps", "200 steps"
TABLE = Table(
    title="Number of training steps, on objects whose size varies by a factor of 16",
    paper="diagnostic",
    number="steps",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=(Row(LONG), Row(SHORT, recipe="diagnostics:task=scales,steps=200")),
    claims=(Claim("twice as many training steps help", "v2, table 2", LONG, SHORT, 1.0),),
    notes="The first row is the training of the first row of diagnostic/crop_size.",
)
