"""DeepLab v3+, table 2: structure of the decoder."""

from experiments.table import Row, Table

# Mean IoU by the convolutions of the decoder, (kernel size, channels).
VALUES = {
    ((3, 256),): 78.21,
    ((3, 256), (3, 256)): 78.85,
    ((3, 256), (3, 256), (3, 256)): 78.02,
    ((3, 128),): 77.25,
    ((1, 256),): 78.07,
}


def name(convolutions: tuple[tuple[int, int], ...]) -> str:
    """Returns the paper's notation for a series of equal convolutions, such as [3×3, 256] × 2.

    Args:
      convolutions: pairs (kernel size, number of output channels), which are all equal.
    """
    kernel, channels = convolutions[0]
    times = f" × {len(convolutions)}" if len(convolutions) > 1 else ""
    return f"[{kernel}×{kernel}, {channels}]{times}"


TABLE = Table(
    title="Convolutions of the decoder after [1×1, 48]",
    paper="v3+",
    number="2",
    recipe="deeplab_v3plus:backbone=resnet_101_beta",
    rows=(
        *(
            Row(f"Conv2, {name(convs)}", value, {"model.decoder_convs": convs})
            for convs, value in VALUES.items()
        ),
        Row(
            "Conv2 and Conv3, [3×3, 256]",
            78.61,
            {"model.decoder": "conv2_conv3", "model.decoder_convs": ((3, 256),)},
        ),
    ),
)
