"""Small DeepLab v3 on a diagnostic task: a dataset of synthetic images.

Each task tests one claim of the DeepLab papers. The module `deeplab_jax.data.diagnostics` states
the claims.

  deeplab-jax prepare diagnostic_distance --data_dir=data
  deeplab-jax train --config=configs/diagnostics.py:task=distance --workdir=runs/distance

Arguments:
* `task`: diagnostic task: distance (default), scales, global, thin, rare or outlines.
* `steps`: number of training steps (default: 400).
* `init`: model that provides the initial weights (default: random weights).
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import unknown_name

TASKS = ("distance", "scales", "global", "thin", "rare", "outlines")
STEPS = 400


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(text, task="distance", steps=STEPS, init="")
    if given.task not in TASKS:
        raise unknown_name("diagnostic task", given.task, TASKS)
    config = configs.default()
    config.data.name = f"diagnostic_{given.task}"

    config.model.architecture = "deeplab_v3"
    config.model.head = "aspp"
    config.model.backbone = "mobilenet_v2"
    config.model.depth_multiplier = 0.35
    config.model.aspp_channels = 48
    # With few steps, the published decay of 0.9997 retains the initial statistics.
    config.model.batch_norm_decay = 0.95
    config.model.atrous_rates = (1, 2, 3)
    config.model.image_pooling = "none"

    # The tasks depend on distances and sizes in pixels, so images are not scaled.
    config.augmentation.crop_size = (97, 97)
    config.augmentation.min_scale = 1.0
    config.augmentation.max_scale = 1.0
    config.augmentation.scale_step = 0.0

    config.training.batch_size = 8
    config.training.num_steps = given.steps
    config.training.init_from = given.init
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.01
    config.schedule.base_learning_rate = 0.015
    config.schedule.warmup_steps = 50
    config.evaluation.every_steps = given.steps
    config.evaluation.batch_size = 20
    config.checkpoint.every_steps = given.steps
    config.log_every_steps = 50
    return config
