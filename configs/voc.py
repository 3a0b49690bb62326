"""DeepLab v3+ on ResNet-50 on PASCAL VOC 2012 (arXiv 1802.02611, section 4; stage 1).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/voc.py --workdir=runs/voc

With `SegmentationClassAug` beside `SegmentationClass` there is the split `train_aug` of 10,582
images, which the papers train on: --config.data.train_split=train_aug.

Not trained here: the recipe needs an ImageNet network to start from and an accelerator. Its fields
are the paper's; those of the released code are marked in deeplab_jax/config.py.

`cpu` makes it small enough to try on two cores, from scratch, on a few hundred images. Such a run
learns where the objects are rather than what they are.

Arguments: `cpu`; `steps`, how many updates.
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs

CPU_STEPS, STEPS = 1500, 30_000


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config."""
    given = configs.arguments(text, cpu=False, steps=0)
    config = configs.default()
    config.data.name = "voc_segmentation"
    config.strict_crop = True
    config.training.num_steps = given.steps or (CPU_STEPS if given.cpu else STEPS)
    if given.cpu:
        return _cpu(config)
    config.model.backbone = "resnet_50"
    config.model.multi_grid = (1, 2, 4)
    config.model.image_pooling = "crop"
    config.optimizer.weight_decay = 1e-4
    return config


def _cpu(config: ConfigDict) -> ConfigDict:
    config.model.backbone = "mobilenet_v2"
    config.model.depth_multiplier = 0.5
    config.model.separable = True
    config.model.aspp_channels = 128
    config.model.decoder_convs = ((3, 128), (3, 128))
    config.model.batch_norm_decay = 0.95
    config.augmentation.crop_size = (257, 257)
    config.training.batch_size = 8
    config.training.ema_decay = 0.99
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.02
    config.schedule.base_learning_rate = 0.003
    config.schedule.warmup_steps = 100
    config.evaluation.every_steps = 500
    config.evaluation.batch_size = 2
    config.checkpoint.every_steps = 250
    return config
