"""Diagnostic table: output strides 16, 32 and 64 of a cascade up to block5 of ResNet-18."""

from experiments.table import Claim, Row, Table
from experiments.tables.diagnostic._resnet import RESNET_18

LABELS = {stride: f"output stride {stride}" for stride in (16, 32, 64)}
SOURCE = "v3, table 1"
TABLE = Table(
    title="Output stride of a cascade up to block5 of ResNet-18",
    paper="diagnostic",
    number="cascade",
    recipe="diagnostics:task=rare,steps=200",
    dataset="diagnostic_rare",
    rows=tuple(
        Row(
            label,
            changes=RESNET_18
            | {
                "model.cascade_blocks": 5,
                "model.output_stride": stride,
                "augmentation.crop_size": (65, 65),
            },
        )
        for stride, label in LABELS.items()
    ),
    claims=(
        Claim(
            "a cascade needs atrous convolution: 16 beats 64", SOURCE, LABELS[16], LABELS[64], 10.0
        ),
        Claim(
            "a cascade needs atrous convolution: 32 beats 64", SOURCE, LABELS[32], LABELS[64], 5.0
        ),
    ),
    notes="The crops of 65 × 65 pixels are the smallest that fit output stride 64.",
)
