"""Family 1: output stride of training against that of evaluation, batches alike.

DeepLab v3's tables 1 and 10 ask it with batches that filled the GPUs of the time; here all rows
have one batch size.
"""

from experiments.table import Row, Table

TABLE = Table(
    title="Output stride of training against that of evaluation, with one batch size",
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
        # At 32, the rates of a head that was made for 8 would be no whole numbers.
        if not (trained == 8 and evaluated == 32)
    ),
    notes="DeepLab v3, table 10: best trained at 16; evaluation at 8 beats 16.",
)
