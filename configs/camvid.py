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

With `best`, the network is EfficientNet-Lite0, initialized with ImageNet weights, and the crops
have 273 × 369 pixels. 2800 steps of 4 crops reach 0.737, 0.741 and 0.745 validation mean IoU
(seeds 0 to 2), and 0.749, 0.756 and 0.758 with scales and flip. They take 58 minutes on 2 cores
(2026-12-01, commits 7252a78b, d1822850 and cfd93f75; experiments/RESULTS.md). The choices were
compared in runs of 400 steps with one seed each: crops of 273 × 369 in batches of 4 reached 0.622,
crops of 193 × 257 in batches of 8 0.603; with the Dice loss, 0.633 (commit 3d73ede4).

With `best_gpu`, the network is EfficientNet-Lite2, and the crops have 353 × 481 pixels. It has not
been trained yet.

Arguments:
* `cpu`: small crops and batches, and a small network, for training on two CPU cores.
* `best`: the recipe with the highest accuracy after an hour on two CPU cores.
* `best_gpu`: the recipe for high accuracy on an accelerator.
* `steps`: number of training steps (default: 20,000; with `cpu`: 1800; with `cpu,init`: 1000; with
  `best`: 2800; with `best_gpu`: 12,000).
* `init`: model that provides the initial weights of the backbone (default: random weights).
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError

STEPS = {"": 20_000, "cpu": 1800, "best": 2800, "best_gpu": 12_000}
FINE_TUNING_STEPS = 1000
# Square roots of the weights that `prepare --report` suggests for the training split. With the full
# weights, predictions of rare classes extend beyond the objects.
CLASS_WEIGHTS = (0.53, 0.45, 2.19, 0.39, 1.0, 0.65, 1.96, 1.41, 0.89, 2.53, 2.97)


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(text, cpu=False, best=False, best_gpu=False, steps=0, init="")
    variant = _variant(given)
    config = configs.default()
    config.data.name = "camvid"

    config.model.backbone = "mobilenet_v2"
    config.model.separable = True
    # With few steps, the published decay of 0.9997 retains the initial statistics.
    config.model.batch_norm_decay = 0.95

    config.augmentation.crop_size = (353, 481)
    config.augmentation.scale_step = 0.0
    config.augmentation.photometric = 0.5

    config.training.num_steps = STEPS[variant]
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
    if variant in ("", "best_gpu"):
        config.model.dtype = "bfloat16"
    if variant in ("cpu", "best"):
        _fit_two_cores(config)
    if variant == "cpu":
        config.model.depth_multiplier = 1.0 if given.init else 0.5
        if given.init:
            config.training.num_steps = FINE_TUNING_STEPS
    if variant == "best":
        config.model.backbone = "timm/tf_efficientnet_lite0"
        _start_from(config, "efficientnet_lite0_imagenet")
        config.augmentation.crop_size = (273, 369)
        config.training.batch_size = 4
        config.training.ema_decay = 0.998
        config.evaluation.every_steps = 1000
    if variant == "best_gpu":
        config.model.backbone = "timm/tf_efficientnet_lite2"
        _start_from(config, "efficientnet_lite2_imagenet")
        config.model.image_pooling = "none"
    if variant.startswith("best"):
        config.loss.dice = 0.5
    config.training.num_steps = given.steps or config.training.num_steps
    return config


def _variant(given: ConfigDict) -> str:
    chosen = [name for name in STEPS if name and given[name]]
    if len(chosen) > 1:
        raise DeepLabError(f"the arguments {' and '.join(chosen)} exclude each other; give one")
    variant = chosen[0] if chosen else ""
    if given.init and variant.startswith("best"):
        raise DeepLabError(f"{variant} has its own initial weights; leave init out")
    return variant


def _fit_two_cores(config: ConfigDict) -> None:
    """Reduces the network, the crops and the batch for training on two CPU cores."""
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


def _start_from(config: ConfigDict, init: str) -> None:
    """Initializes the backbone from the model `init`, and reduces its learning rate to a tenth."""
    config.training.init_from = init
    config.training.init_scope = "backbone"
    config.optimizer.multipliers.backbone = 0.1
