"""DeepLab v3+ with ResNet-50 on PASCAL VOC 2012 (arXiv 1802.02611, section 4).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/voc.py --workdir=runs/voc

The paper trains in two stages, which docs/guides/recipes.md describes. The recipe corresponds to
the first stage, but trains on the split `train`. The paper trains on the split `train_aug` of
10,582 images, which --config.data.train_split=train_aug selects. `prepare` writes this split only
if the folder `SegmentationClassAug` is next to `SegmentationClass`.

The recipe requires an accelerator. Its backbone starts from TF-Slim's weights for ImageNet, a
TensorFlow checkpoint that requires `pip install 'deeplab_jax[tensorflow]'`. No result of the recipe
has been measured yet. The values of the config fields are those of the paper, except for the
training split and for defaults that come from the released code. The sources of the defaults are in
config_fields.py, optimization_fields.py and architecture_fields.py in deeplab_jax/.

With `cpu`, the network is small enough to train on two cores, from scratch, on a few hundred
images. It then learns where objects are rather than which classes they have.

Arguments:
* `cpu`: small network for training on two CPU cores.
* `steps`: number of training steps (default: 30,000; with `cpu`, 1500).
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs

CPU_STEPS, STEPS = 1500, 30_000


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
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
    config.training.init_from = "resnet50_imagenet"
    config.training.init_scope = "backbone"
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
