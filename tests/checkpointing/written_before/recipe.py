"""The config of `v2/workdir`, as a user would have written it, with default rates."""

from ml_collections import ConfigDict

from deeplab_jax import config as configs


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config."""
    # Sets separable, aspp_channels, low_level_channels and decoder_convs, which v2 did not read.
    config = configs.load("shapes:cpu")
    config.model.architecture = "deeplab_v2"
    config.model.output_stride = 16
    config.model.depth_multiplier = 0.05
    config.model.atrous_rates = None
    config.augmentation.crop_size = (33, 33)
    config.training.num_steps = 3
    config.training.batch_size = 2
    config.training.ema_decay = 0.0
    config.optimizer.name = "sgd"
    config.evaluation.every_steps = config.checkpoint.every_steps = 2
    config.evaluation.limit = 2
    return config
