"""Diagnostic table: random scaling as augmentation, for training on 64 images."""

from experiments.table import Claim, Row, Table

NONE, SCALED = "no scaling", "scales 0.5 to 2"
FEW = {"data.train_split": "train[:64]"}
TABLE = Table(
    title="Random scaling with 64 training images",
    paper="diagnostic",
    number="scaling",
    recipe="diagnostics:task=scales",
    dataset="diagnostic_scales",
    rows=(
        Row(NONE, changes=FEW),
        Row(
            SCALED,
            changes=FEW | {"augmentation.min_scale": 0.5, "augmentation.max_scale": 2.0},
        ),
    ),
    claims=(Claim("random scaling helps", "v2, table 4", SCALED, NONE, 1.0),),
    notes="With 64 images, 400 steps are 50 epochs.",
)
