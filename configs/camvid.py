"""DeepLab v3+ with MobileNetV2 on CamVid (11 classes, 367 training and 101 validation images).

  deeplab-jax prepare camvid --source=path/to/CamVid --data_dir=data
  deeplab-jax train --config=configs/camvid.py:cpu --workdir=runs/camvid

With `cpu`, training from scratch on 2 cores of an AMD EPYC reaches 0.549 validation mean IoU after
1800 steps (0.510 after 1200, 0.413 after 600), in 15 min 58 s at 14 to 15 images/s (2026-11-23).

`cpu,init=MODEL` initializes the backbone with the weights of another model. MODEL is a name of
published weights, a model directory or a workdir. The backbone then has all channels (depth
multiplier 1 instead of 0.5):

  deeplab-jax train --config=camvid:cpu,init=deeplabv3_mobilenetv2_voc_coreml_lut8 \\
      --workdir=runs/camvid_voc

On 2 cores this reaches 0.658 validation mean IoU after 1000 steps (0.633 after 600). It took 30 min
50 s at 3 to 9 images/s, while other processes used the same cores (2026-11-25, commit e4cb5ea).

Without `cpu`, the recipe is for an accelerator: all channels, larger crops. It has not been trained
yet.

Arguments:
* `cpu`: small crops and batches, and a small network, for training on two CPU cores.
* `steps`: number of training steps (default: 20,000; with `cpu`: 1800; with `cpu,init`: 1000).
* `init`: model that provides the initial weights of the backbone (default: random weights).
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs

CPU_STEPS, FINE_TUNING_STEPS, STEPS = 1800, 1000, 20_000
# Square roots of the weights that `prepare --report` suggests for the training split. With the full
# weights, predictions of rare classes extend beyond the objects.
CLASS_WEIGHTS = (0.53, 0.45, 2.19, 0.39, 1.0, 0.65, 1.96, 1.41, 0.89, 2.53, 2.97)


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(text, cpu=False, steps=0, init="")
    config = configs.default()
    config.data.name = "camvid"

    config.model.backbone = "mobilenet_v2"
    config.model.separable = True
    # With few steps, the published decay of 0.9997 retains the initial statistics.
    config.model.batch_norm_decay = 0.95

    config.augmentation.crop_size = (353, 481)
    config.augmentation.scale_step = 0.0
    config.augmentation.photometric = 0.5

    config.training.num_steps = given.steps or _num_steps(given)
    config.training.batch_size = 16
    config.loss.class_weights = CLASS_WEIGHTS
    config.training.ema_decay = 0.999
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.02
    config.schedule.base_learning_rate = 0.01
    config.schedule.warmup_steps = 100
    config.evaluation.every_steps = 1000
    if given.init:
        _start_from(config, given.init)
    if not given.cpu:
        config.model.dtype = "bfloat16"
        return config

    config.model.depth_multiplier = 1.0 if given.init else 0.5
    # The crop has half the usual size, so the rates are half the usual ones. Image pooling does not
    # help DeepLab v3+ on driving scenes (arXiv 1802.02611, table 7), and with a batch of 8 its
    # batch statistics are inaccurate.
    config.model.atrous_rates = (3, 6, 9)
    config.model.image_pooling = "none"
    config.model.aspp_channels = 128
    config.model.low_level_channels = 32
    config.model.decoder_convs = ((3, 128), (3, 128))
    config.augmentation.crop_size = (193, 257)
    config.augmentation.min_scale = 0.6
    config.augmentation.max_scale = 1.5
    config.training.batch_size = 8
    config.training.ema_decay = 0.99
    config.evaluation.every_steps = 600
    config.evaluation.batch_size = 4
    config.checkpoint.every_steps = 200
    return config


def _num_steps(given: ConfigDict) -> int:
    if not given.cpu:
        return STEPS
    return FINE_TUNING_STEPS if given.init else CPU_STEPS


def _start_from(config: ConfigDict, init: str) -> None:
    """Initializes the backbone from the model `init`, and reduces its learning rate to a tenth."""
    config.training.init_from = init
    config.training.init_scope = "backbone"
    config.optimizer.multipliers.backbone = 0.1
