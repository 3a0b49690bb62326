"""Preset that tests whether a table runs: synthetic images, tiny networks and a few steps."""

from experiments.presets.preset import Preset, Size

SMOKE = Preset(
    name="smoke",
    scales_down=True,
    small=Size("mobilenet_v2", 12, {"model.depth_multiplier": 0.25}),
    resnet=Size("resnet_18_beta", 12),
    published=Size("mobilenet_v2", 12),
    crop_size=(65, 65),
    batch_size=4,
    rate_share=0.5,
    width_share=0.125,
    changes={
        "data.name": "shapes",
        "data.train_split": "train[:64]",
        "data.validation_split": "val[:12]",
        "model.batch_norm_decay": 0.8,
        "augmentation.min_scale": 0.8,
        "augmentation.max_scale": 1.25,
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.01,
        "schedule.base_learning_rate": 0.01,
        "evaluation.batch_size": 4,
        "evaluation.limit": 4,
        "checkpoint.every_steps": 4,
        "log_every_steps": 2,
    },
)
