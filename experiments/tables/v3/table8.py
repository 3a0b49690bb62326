"""DeepLab v3, table 8: crop, upsampled logits, batch normalisation."""

from experiments.table import Row, Table

TABLE = Table(
    title="Crop size, upsampling logits in training, training batch normalisation",
    paper="v3",
    number="8",
    recipe="deeplab_v3",
    rows=(
        Row("crop 513, upsampled logits, batch normalisation", 77.21),
        Row(
            "crop 513, upsampled logits, frozen statistics",
            75.95,
            {"model.frozen_batch_norm": True},
        ),
        Row(
            "crop 513, labels shrunk, batch normalisation",
            76.01,
            {"loss.upsample_logits": False},
        ),
        Row(
            "crop 321, upsampled logits, batch normalisation",
            67.22,
            {"augmentation.crop_size": (321, 321)},
        ),
    ),
)
