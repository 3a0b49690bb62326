"""CamVid."""

from deeplab_jax import config as configs


def get_config(text=None):
    """Returns the config."""
    given = configs.arguments(text, cpu=False, steps=2400)
    config = configs.default()
    config.model.backbone = "mobilenet_v2"
    config.model.depth_multiplier = 0.5
    config.model.separable = True
    config.model.aspp_channels = 128
    config.model.low_level_channels = 32
    config.model.decoder_convs = ((3, 128), (3, 128))
    config.model.batch_norm_decay = 0.95
    config.data.name = "camvid"
    config.augmentation.crop_size = (193, 257)
    config.augmentation.min_scale = 0.6
    config.augmentation.max_scale = 1.5
    config.augmentation.scale_step = 0.0
    config.augmentation.photometric = 0.5
    config.training.num_steps = given.steps
    config.training.batch_size = 8
    config.training.ema_decay = 0.99
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.02
    config.schedule.base_learning_rate = 0.003
    config.schedule.warmup_steps = 100
    config.evaluation.every_steps = 400
    config.evaluation.batch_size = 4
    config.checkpoint.every_steps = 400
    return config
