"""DeepLab v3+, table 1: number of channels of the low-level features in the decoder."""

from experiments.table import Row, Table

VALUES = {8: 77.61, 16: 77.92, 32: 78.16, 48: 78.21, 64: 77.94}
TABLE = Table(
    title="Channels of the low-level features in a decoder with one convolution [3×3, 256]",
    paper="v3+",
    number="1",
    recipe="deeplab_v3plus:backbone=resnet_101_beta",
    rows=tuple(
        Row(
            f"{channels} channels",
            value,
            {"model.low_level_channels": channels, "model.decoder_convs": ((3, 256),)},
        )
        for channels, value in VALUES.items()
    ),
)
