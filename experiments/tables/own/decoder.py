"""Ablation family 4: DeepLab v3+ without decoder, and with decoders of different sizes."""

from experiments.table import Row, Table

ONE, TWO, THREE = ((3, 256),), ((3, 256),) * 2, ((3, 256),) * 3
TABLE = Table(
    title="Decoder: number of low-level channels and convolutions, and no decoder",
    paper="own",
    number="family 4",
    recipe="deeplab_v3plus:backbone=resnet_101_beta",
    rows=(
        Row("no decoder", changes={"model.decoder": "none"}),
        *(
            Row(
                f"{channels} low-level channels, [3×3, 256]",
                changes={"model.low_level_channels": channels, "model.decoder_convs": ONE},
            )
            for channels in (8, 48, 64)
        ),
        Row("48 low-level channels, [3×3, 256] × 2", changes={"model.decoder_convs": TWO}),
        Row("48 low-level channels, [3×3, 256] × 3", changes={"model.decoder_convs": THREE}),
        Row("48 low-level channels, [1×1, 256]", changes={"model.decoder_convs": ((1, 256),)}),
    ),
    notes="In DeepLab v3+ (tables 1 and 2), 48 channels and two convolutions are best.",
)
