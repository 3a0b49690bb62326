"""Training settings of DeepLab v3 and v3+ by stage and dataset, including MobileNet backbones."""

import dataclasses
from typing import Any

from deeplab_jax.configs._recipes import Recipe, choose, need_init, start_from
from ml_collections import ConfigDict

from deeplab_jax.errors import DeepLabError

ARGUMENTS: dict[str, Any] = {
    "dataset": "voc",
    "split": "",
    "stage": 1,
    "from_coco": False,
    "init": "",
    "steps": 0,
}
# Verified: DeepLab v3, section 4.3.
RARE_CLASSES = ("bicycle", "chair", "diningtable", "pottedplant", "sofa")
IMAGENET = {
    "resnet_50": "resnet50_imagenet",
    "resnet_101": "resnet101_imagenet",
    "resnet_50_beta": "resnet50_beta_imagenet",
    "resnet_101_beta": "resnet101_beta_imagenet",
    "xception_41": "xception41_imagenet",
    "xception_65": "xception65_imagenet",
    "xception_71": "xception71_imagenet",
    "mobilenet_v2": "mobilenetv2_imagenet",
    # From memory: the segmentation networks on MobileNetV3 were trained from scratch.
    "mobilenet_v3_large": "none",
    "mobilenet_v3_small": "none",
}
# Initial weights of MobileNetV2 by depth multiplier.
NARROW = {
    0.75: "mobilenetv2_dm075_imagenet",
    0.5: "mobilenetv2_dm05_imagenet",
    0.35: "mobilenetv2_dm035_imagenet",
}


@dataclasses.dataclass(frozen=True)
class Amount:
    """Training settings for one dataset.

    Attributes:
      num_steps: number of training steps.
      learning_rate: initial learning rate.
      crop: height and width of the crops, in pixels.
      open: {dotted name of a config field: reason why its value is uncertain}, see `Recipe.open`.
    """

    num_steps: int
    learning_rate: float
    crop: int
    open: dict[str, str] = dataclasses.field(default_factory=dict)


AMOUNTS = {
    "voc": Amount(30_000, 7e-3, 513),  # Verified: DeepLab v3, section 4.
    # Verified: DeepLab v3, appendix C (steps and crop); an author in tensorflow/models #3677
    # (learning rate).
    "cityscapes": Amount(
        90_000, 1e-2, 769, {"training.batch_size": "as on VOC: the paper only states 'large'"}
    ),
    # Verified: the released command (steps, crop and sizes).
    "ade20k": Amount(
        150_000,
        7e-3,
        513,
        {
            "schedule.base_learning_rate": "as on VOC: not part of the released command",
            "training.batch_size": "as on VOC: the released command has 4 as an example and "
            "recommends more than 12",
        },
    ),
    # Verified: an author in tensorflow/models #4234, who adds that 300,000 steps are enough.
    "coco_voc": Amount(500_000, 7e-3, 513),
}


def training_split(given: ConfigDict) -> str:
    """Returns the argument `split` or, if it is empty, the training split to use instead.

    The split to use instead is trainval in stage 2. In stage 1 it is "", which selects the default
    of the dataset.

    Raises:
      DeepLabError: the stage is neither 1 nor 2, or stage 2 is combined with `from_coco` or with
        a dataset or backbone that has no stage 2.
    """
    choose("stage", str(given.stage), ("1", "2"))
    if given.stage == 1:
        return given.split
    if given.dataset != "voc" or given.backbone.startswith("mobilenet_v3"):
        raise DeepLabError(
            "stage=2 (DeepLab v3, section 4.3) requires dataset=voc and a backbone other than "
            "MobileNetV3; change these arguments, or omit stage"
        )
    if given.from_coco:
        raise DeepLabError(
            "from_coco concerns stage 1 and cannot be combined with stage=2; omit one of them"
        )
    return given.split or "trainval"


def train(made: Recipe, given: ConfigDict) -> None:
    """Sets the fields of a recipe that concern training.

    They include the output stride and frozen batch normalization, which depend on the training
    stage.

    Args:
      made: recipe to change, in which the dataset and the network are already set.
      given: parsed arguments of the recipe. They include `backbone` and all keys of ARGUMENTS, and
        `training_split` has checked the stage.

    Raises:
      DeepLabError: arguments contradict each other, or `init` is required but not given.
    """
    config, amount = made.config, AMOUNTS[given.dataset]
    config.training.num_steps = given.steps or amount.num_steps
    config.training.batch_size = 16  # Verified: DeepLab v3, section 4.
    config.schedule.base_learning_rate = amount.learning_rate
    made.open.update({name: why for name, why in amount.open.items() if name not in made.open})
    config.augmentation.crop_size = (amount.crop, amount.crop)
    # Verified: released code: scales 0.5, 0.75, …, 2.
    config.augmentation.min_scale, config.augmentation.max_scale = 0.5, 2.0
    config.augmentation.scale_step = 0.25
    resnet = given.backbone.startswith("resnet")
    config.optimizer.weight_decay = 1e-4 if resnet else 4e-5  # Verified: released code.
    config.optimizer.multipliers.bias = 2.0  # Verified: released code, for the classifier.
    if given.dataset == "ade20k":
        _resized(made, given)
    if given.dataset == "cityscapes" and given.split.endswith("coarse"):
        made.open["training.num_steps"] = "as for fine labels: no source read for coarse labels"
    if given.stage == 2:
        _second_stage(made, given)
    elif given.from_coco:
        _from_coco(made, given)
    else:
        _first_stage(made, given)


def _first_stage(made: Recipe, given: ConfigDict) -> None:
    if made.config.model.output_stride is None:
        made.config.model.output_stride = 16  # Verified: DeepLab v3, section 4.
    init = given.init or _imagenet(given)
    published = init.endswith("_imagenet")
    narrow = given.get("width", 1.0) != 1
    start_from(made, init, "backbone" if published and not narrow else "matching")
    if published and narrow:
        made.open["training.init_from"] = (
            "the numbers of channels are multiples of 8 in the published image classifiers, but "
            "not in the released network: layers that differ are initialized randomly "
            "(model.width_divisor=8 loads all layers)"
        )
    if init == "none" and not given.init:
        made.open["training.init_from"] = "from memory: trained from scratch"


def _imagenet(given: ConfigDict) -> str:
    width = given.get("width", 1.0)
    if width == 1:
        return IMAGENET[given.backbone]
    need_init(NARROW.get(width, ""), f"there are no published weights for width={width}")
    return NARROW[width]


def _from_coco(made: Recipe, given: ConfigDict) -> None:
    need_init(given.init, "from_coco requires a network trained on coco_voc")
    if given.dataset == "coco_voc":
        raise DeepLabError(
            "from_coco requires a dataset other than coco_voc; omit from_coco, or give another "
            "dataset"
        )
    config, same_classes = made.config, given.dataset == "voc"
    if config.model.output_stride is None:
        config.model.output_stride = 16
    start_from(made, given.init, "all" if same_classes else "matching")
    if not same_classes:
        made.open["schedule.base_learning_rate"] = "as after ImageNet: no source read for COCO"
        return
    config.schedule.base_learning_rate = 1e-4  # Verified: DeepLab v3, section 4.3.
    if config.model.architecture != "deeplab_v3" or given.backbone == "mobilenet_v2":
        made.open["schedule.base_learning_rate"] = (
            "as in DeepLab v3: no source read for this network"
        )


def _second_stage(made: Recipe, given: ConfigDict) -> None:
    need_init(given.init, "stage=2 requires the network of stage 1")
    config = made.config
    start_from(made, given.init, "all")
    config.model.output_stride = 8  # Verified: DeepLab v3, section 4.1.
    config.model.frozen_batch_norm = True  # Verified: DeepLab v3, section 4.1.
    config.schedule.base_learning_rate = 1e-3  # Verified: DeepLab v3, section 4.1; 30,000 steps.
    if config.data.train_split == "train+val":
        config.data.oversample_classes = RARE_CLASSES
    made.open["training.batch_size"] = "as in stage 1: not in the paper"
    if config.model.architecture == "deeplab_v3plus":
        for field in ("schedule.base_learning_rate", "training.num_steps"):
            made.open[field] = (
                "as in DeepLab v3: the paper only states output stride and frozen batch norm"
            )


def _resized(made: Recipe, given: ConfigDict) -> None:
    """Sets the size to which ADE20K images are resized before the random scaling.

    The longer side becomes 513 pixels, or 257 pixels with MobileNetV2. The length of the shorter
    side is rounded up to k·16 + 1 pixels for a whole number k. With MobileNetV2, the crop size is
    also set, to 257 × 257 pixels.
    """
    augmentation = made.config.augmentation
    side = 513
    if given.backbone == "mobilenet_v2":
        side = 257  # Verified: crop of the released network.
        augmentation.crop_size = (side, side)
        made.open["augmentation.min_resize"] = "derived: the released command with this crop size"
    # Verified: released command: both sides at most 513, each k·16 + 1.
    augmentation.min_resize = augmentation.max_resize = side
    augmentation.resize_factor = 16
