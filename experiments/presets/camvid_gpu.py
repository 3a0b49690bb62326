"""Preset for CamVid at full size on a GPU, with the atrous rates and channels of each table row.

experiments/RESULTS.md contains no results of this preset.
"""

from experiments.presets.camvid import CAMVID
from experiments.presets.preset import Preset, Size

CAMVID_GPU = Preset(
    name="camvid_gpu",
    scales_down=True,
    small=Size("mobilenet_v2", 4000),
    resnet=Size("resnet_50_beta", 4000),
    published=Size(
        "mobilenet_v2",
        1000,
        {"optimizer.multipliers.backbone": 0.1, "schedule.warmup_steps": 50},
    ),
    # Legal size nearest to the images, which have 360 × 480 pixels.
    crop_size=(353, 481),
    batch_size=16,
    changes=CAMVID.changes
    | {
        "model.dtype": "bfloat16",
        "evaluation.batch_size": 8,
        "checkpoint.every_steps": 1000,
        "log_every_steps": 100,
    },
)
