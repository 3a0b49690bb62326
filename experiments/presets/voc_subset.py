"""Preset for a subset of VOC (437 training, 112 validation images).

A training run from random weights takes 20 minutes on two cores.

experiments/RESULTS.md states the reasons for the values of the preset.
"""

from experiments.presets.camvid import FINE_TUNED, TRAINING
from experiments.presets.preset import Preset, Size

VOC_SUBSET = Preset(
    name="voc_subset",
    scales_down=True,
    small=Size("mobilenet_v2", 700, {"model.depth_multiplier": 0.5}),
    resnet=Size("resnet_18_beta", 230),
    published=Size("mobilenet_v2", 200, FINE_TUNED),
    crop_size=(257, 257),
    batch_size=8,
    rate_share=0.5,
    width_share=0.5,
    changes=TRAINING
    | {
        "data.name": "voc_segmentation",
        "data.train_split": "train",
        "data.validation_split": "val",
        "augmentation.photometric": 0.0,
        "schedule.base_learning_rate": 0.003,
        "evaluation.batch_size": 2,
    },
)
