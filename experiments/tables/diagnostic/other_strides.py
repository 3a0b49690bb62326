"""Diagnostic table: evaluation at a smaller output stride than in training."""

from experiments.table import Claim, Row, Table

PAIRS = ((16, 16), (16, 8), (32, 32), (32, 16))
LABELS = {pair: "trained at {}, evaluated at {}".format(*pair) for pair in PAIRS}
TABLE = Table(
    title="Output strides of training and evaluation",
    paper="diagnostic",
    number="other strides",
    recipe="diagnostics:task=rare",
    dataset="diagnostic_rare",
    rows=tuple(
        Row(
            label,
            changes={"model.output_stride": trained},
            inference={"output_stride": evaluated},
        )
        for (trained, evaluated), label in LABELS.items()
    ),
    claims=(
        Claim(
            "after training at 16, evaluation at 8 helps",
            "v3, table 10",
            LABELS[16, 8],
            LABELS[16, 16],
            1.0,
        ),
        Claim(
            "after training at 32, evaluation at 16 helps",
            "v3+, table 3",
            LABELS[32, 16],
            LABELS[32, 32],
            0.3,
        ),
    ),
)
