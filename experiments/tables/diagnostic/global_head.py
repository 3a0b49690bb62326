"""Diagnostic table: image pooling on features of a frozen backbone.

In this dataset, a single cue anywhere in the image determines the class of all objects.
"""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._frozen import BEFORE, FROZEN, NOTES
from experiments.tables.diagnostic.global_cue import OFF, ON

TABLE = Table(
    title="Image pooling on frozen features, with a single cue anywhere in the image",
    paper="diagnostic",
    number="global, head",
    recipe="diagnostics:task=global",
    dataset="diagnostic_global",
    rows=(
        Row(ON, changes=FROZEN | {"model.image_pooling": "global"}, after=BEFORE),
        Row(OFF, changes=FROZEN | {"model.image_pooling": "none"}, after=BEFORE),
    ),
    claims=(
        Claim(
            "on frozen features, image pooling provides context from the whole image",
            "v3, section 3.3 and table 5",
            ON,
            OFF,
            10.0,
        ),
    ),
    notes=NOTES,
)
