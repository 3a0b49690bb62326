"""Preset for CamVid (367 training, 101 validation images).

A training run from random weights takes 20 minutes on two cores.

experiments/RESULTS.md states the reasons for the values of the preset.
"""

from experiments.presets.preset import Preset, Size

# Class weights of configs/camvid.py. Without weights, the networks do not learn rare classes in so
# short a training.
CLASS_WEIGHTS = (0.53, 0.45, 2.19, 0.39, 1.0, 0.65, 1.96, 1.41, 0.89, 2.53, 2.97)
TRAINING = {
    "model.batch_norm_decay": 0.95,
    "augmentation.min_scale": 0.6,
    "augmentation.max_scale": 1.5,
    "augmentation.scale_step": 0.0,
    "augmentation.photometric": 0.5,
    "training.ema_decay": 0.99,
    "optimizer.name": "adamw",
    "optimizer.weight_decay": 0.02,
    "schedule.base_learning_rate": 0.01,
    "schedule.warmup_steps": 100,
    "evaluation.batch_size": 4,
    "evaluation.limit": 16,
    "checkpoint.every_steps": 100,
    "log_every_steps": 20,
}
FINE_TUNED = {
    "model.depth_multiplier": 0.5,
    "optimizer.multipliers.backbone": 0.1,
    "schedule.warmup_steps": 20,
}
CAMVID = Preset(
    name="camvid",
    scales_down=True,
    small=Size("mobilenet_v2", 900, {"model.depth_multiplier": 0.5}),
    resnet=Size("resnet_18_beta", 300),
    published=Size("mobilenet_v2", 200, FINE_TUNED),
    crop_size=(193, 257),
    batch_size=8,
    rate_share=0.5,
    width_share=0.5,
    changes=TRAINING
    | {
        "data.name": "camvid",
        "data.train_split": "train",
        "data.validation_split": "val",
        "loss.class_weights": CLASS_WEIGHTS,
    },
)
