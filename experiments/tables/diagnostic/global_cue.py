"""Diagnostic table: image pooling for classes that depend on a cue anywhere in the image."""

from experiments.table import Claim, Row, Table

ON, OFF = "with image pooling", "without image pooling"
TABLE = Table(
    title="Image pooling, with a single cue anywhere in the image",
    paper="diagnostic",
    number="global",
    recipe="diagnostics:task=global",
    dataset="diagnostic_global",
    rows=(
        Row(ON, changes={"model.image_pooling": "global"}),
        Row(OFF, changes={"model.image_pooling": "none"}),
    ),
    claims=(
        Claim(
            "image pooling provides context from the whole image",
            "v3, section 3.3 and table 5",
            ON,
            OFF,
            10.0,
        ),
    ),
)
