"""DeepLab v1 on PASCAL VOC 2012 (arXiv 1412.7062).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/deeplab_v1.py --workdir=runs/deeplab_v1
  deeplab-jax train --config=configs/deeplab_v1.py:msc,init=runs/deeplab_v1 --workdir=runs/msc

Number of steps: 6,000, or 8,000 for split=trainval_aug. Fine-tuning took the authors about 10 hours
on one Titan GPU.

Mean IoU on val in the paper (tables 1 and 2), with CRF in parentheses; not reproduced here:
* LargeFOV: 62.25 (67.64).
* fov=7x7: 64.38 (67.64).
* fov=4x4: 59.80 (63.74).
* fov=4x4,rate=8: 63.41 (67.14), from DeepLab v2, table 1.
* msc on LargeFOV: 64.21 (68.70).

Arguments:
* `fov`: kernel size of fc6: large (3×3, the default), 4x4 or 7x7.
* `rate`: atrous rate of fc6; 0 (default): the published rate for `fov`.
* `msc`: adds multi-scale features (section 4.3). Only the layers that compute these features are
  trained. `init` is then required: a network that was trained without these features.
* `split`: training split: train_aug (default), train, trainval or trainval_aug.
* `init`: weights to start from (default: VGG-16 trained on ImageNet); `none`: random weights.
* `steps`: number of training steps (default: see above).
"""

from deeplab_jax.configs._recipes import (
    CONVENTIONS,
    Recipe,
    choose,
    need_init,
    start_from,
    start_from_vgg,
    use_data,
)
from ml_collections import ConfigDict

from deeplab_jax import config as configs

FOVS = ("large", "4x4", "7x7")


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    return recipe(text).config


def recipe(text: str | None = None) -> Recipe:
    """Returns the config for the arguments in `text`, and why some of its values are uncertain."""
    given = configs.arguments(text, fov="large", rate=0, msc=False, split="", init="", steps=0)
    choose("fov", given.fov, FOVS)
    made = Recipe()
    use_data(made, "voc", given.split, ("voc",))
    _network(made, given)
    _training(made.config, given)
    if given.msc:
        _features_of_many_scales(made, given.init)
    else:
        _imagenet(made, given)
    return made


def _network(made: Recipe, given: ConfigDict) -> None:
    model = made.config.model
    model.architecture = "deeplab_v1"
    model.fov = given.fov  # Verified: paper, table 2.
    if given.rate:
        model.atrous_rates = (given.rate,)


def _training(config: ConfigDict, given: ConfigDict) -> None:
    config.augmentation.crop_size = (321, 321)  # Verified: released code.
    # Verified: the only augmentation in the released code is flipping and cropping.
    config.augmentation.min_scale = config.augmentation.max_scale = 1.0
    trainval = given.split == "trainval_aug"
    config.training.num_steps = given.steps or (8000 if trainval else 6000)  # Verified: released.
    # Verified: released code, and DeepLab v2, table 2, for the same 62.25; the paper says 20.
    config.training.batch_size = 30
    config.loss.upsample_logits = False  # Verified: paper, section 4.1.
    config.optimizer.weight_decay = 5e-4  # Verified: paper, section 4.1; not of biases.
    # Verified: released code, 10 and 20 for fc8, 1 and 2 elsewhere.
    config.optimizer.multipliers.classifier = 10.0
    config.optimizer.multipliers.bias = 2.0
    # Verified: paper, section 4.1: 0.001, divided by 10 every 2,000 steps.
    config.schedule.base_learning_rate = 1e-3
    config.schedule.name = "step"
    config.schedule.steps_per_drop = 2000
    config.schedule.drop_factor = 0.1


def _imagenet(made: Recipe, given: ConfigDict) -> None:
    """Sets the initial weights: those of `given.init` or, by default, VGG-16 from ImageNet."""
    init = given.init or "vgg16_imagenet"
    if given.fov == "7x7":
        start_from(made, init, "all")  # fc6 and fc7 have the same shapes as in VGG-16.
    else:
        start_from_vgg(made, init)


def _features_of_many_scales(made: Recipe, init: str) -> None:
    need_init(init, "msc requires a trained DeepLab with the same fov")
    config = made.config
    config.model.decoder = "msc"
    start_from(made, init, "matching")
    # The network `init` itself started from these weights.
    config.model.update(CONVENTIONS["vgg16_imagenet"])
    # Verified: paper, section 4.3: only the new layers are trained.
    config.optimizer.multipliers.backbone = 0.0
    config.optimizer.multipliers.head = 0.0
    made.open["schedule.base_learning_rate"] = "from memory: the same schedule for the new layers"
    made.open["optimizer.multipliers.decoder"] = "from memory: 1, like other layers"
