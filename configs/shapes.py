"""DeepLab v3+ on the built-in shapes."""

from deeplab_jax import config as configs


def get_config(text=None):
    """Returns the config."""
    given = configs.arguments(text, cpu=False, steps=900)
    config = configs.default()
    config.model.backbone = "mobilenet_v2"
    config.model.depth_multiplier = 0.5
    config.model.separable = True
    config.model.aspp_channels = 96
    config.model.low_level_channels = 24
    config.model.decoder_convs = ((3, 96), (3, 96))
    config.model.batch_norm_decay = 0.95
    config.data.name = "shapes"
    config.augmentation.crop_size = (129, 129)
    config.augmentation.min_scale = 0.8
    config.augmentation.max_scale = 1.25
    config.augmentation.scale_step = 0.0
    config.training.num_steps = given.steps
    config.training.batch_size = 16
    config.training.ema_decay = 0.99
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.01
    config.schedule.base_learning_rate = 0.003
    config.schedule.warmup_steps = 50
    config.evaluation.every_steps = 300
    config.evaluation.batch_size = 20
    config.checkpoint.every_steps = 300
    return config
