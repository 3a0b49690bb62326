"""Ablation family 1: output strides of training and evaluation, with equal batch size.

In tables 1 and 10 of DeepLab v3, the batch size depends on the memory of the GPUs; here it is the
same in all rows.
"""

from experiments.table import Row, Table

TABLE = Table(
    title="Output strides of training and evaluation, with equal batch size",
    paper="own",
    number="family 1",
    recipe="deeplab_v3",
    rows=tuple(
        Row(
            f"trained at {trained}, evaluated at {evaluated}",
            changes={"model.output_stride": trained},
            inference={"output_stride": evaluated},
        )
        for trained in (8, 16, 32)
        for evaluated in (32, 16, 8)
        # At 32, the rates of a head for output stride 8 would not be integers.
        if not (trained == 8 and evaluated == 32)
    ),
    notes="In DeepLab v3 (table 10), training at 16 is best, and evaluation at 8 beats 16.",
)
