"""DeepLab v3, table 8: crop size, upsampled logits, batch normalization."""

from experiments.table import Row, Table

TABLE = Table(
    title="Crop size, upsampling of logits in training, and training of batch normalization",
    paper="v3",
    number="8",
    recipe="deeplab_v3",
    rows=(
        Row("crop 513, upsampled logits, batch normalization", 77.21),
        Row(
            "crop 513, upsampled logits, frozen statistics",
            75.95,
            {"model.frozen_batch_norm": True},
        ),
        Row(
            "crop 513, downsampled labels, batch normalization",
            76.01,
            {"loss.upsample_logits": False},
        ),
        Row(
            "crop 321, upsampled logits, batch normalization",
            67.22,
            {"augmentation.crop_size": (321, 321)},
        ),
    ),
)
