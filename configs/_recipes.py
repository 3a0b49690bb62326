"""Shared parts of the recipes from the papers: datasets, initial weights and open points.

Comments in the recipes state the source of each value and how certain it is:

* verified: read in the given source, a paper or the authors' released code;
* derived: follows from verified facts as the comment states;
* from memory: not read in its source;
* open: the source does not specify the value, or this package does not support it. `Recipe.open`
  lists these values.
"""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError, unknown_name


@dataclasses.dataclass
class Recipe:
    """Config of a recipe, and the points in which it may differ from the paper.

    Attributes:
      config: config to train with.
      open: {point in which the recipe may differ from the paper: reason}. A point is the dotted
        name of a config field, or a short description if no field corresponds to it.
    """

    config: ConfigDict = dataclasses.field(default_factory=configs.default)
    open: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Dataset as used in the papers.

    Attributes:
      name: name of the prepared dataset.
      splits: {name of a training split in the papers: value of `data.train_split`}; the first
        split is the default.
      evaluation_size: (height, width) that images are padded to in evaluation, as in the released
        code; None: the padded size depends on the size of each image.
    """

    name: str
    splits: Mapping[str, str]
    evaluation_size: tuple[int, int] | None


DATA_SETS = {
    "voc": DataSet(
        "voc_segmentation",
        {
            "train_aug": "train_aug",  # 10,582 images (SBD).
            "train": "train",  # 1,464.
            "trainval": "train+val",  # 2,913.
            # Derived: the masks of val are those of VOC, because SBD may not contain all of val.
            "trainval_aug": "train_aug+val",
        },
        (513, 513),  # Verified: released code; the largest image has 500 pixels.
    ),
    "cityscapes": DataSet(
        "cityscapes",
        {
            "train": "train",  # 2,975 fine annotations.
            "trainval": "train+val",  # 3,475.
            # Verified: the 22,973 and 23,473 images in the released lists are the sums of the fine
            # sets and the 19,998 images with only coarse annotations.
            "train_coarse": "train+train_extra",
            "trainval_coarse": "train+val+train_extra",
        },
        (1025, 2049),  # Verified: released code, whole images.
    ),
    "ade20k": DataSet("ade20k", {"train": "train"}, None),
    # Derived: largest side 640 in COCO, and k·16 + 1.
    "coco_voc": DataSet("coco_voc", {"train": "train"}, (641, 641)),
    "coco_stuff": DataSet("coco_stuff", {"train": "train"}, (641, 641)),
    "pascal_context": DataSet("pascal_context", {"train": "train"}, (513, 513)),
    "pascal_person_part": DataSet("pascal_person_part", {"train": "train"}, (513, 513)),
}


def use_data(recipe: Recipe, dataset: str, split: str, legal: tuple[str, ...]) -> None:
    """Sets the dataset, the training split and the evaluation size of a recipe.

    Args:
      recipe: recipe to change.
      dataset: name of the dataset, one of `legal`.
      split: name of the training split in the papers; empty: the default.
      legal: datasets that the paper used.

    Raises:
      DeepLabError: the dataset or split is not legal.
    """
    choose("dataset", dataset, legal)
    data_set, config = DATA_SETS[dataset], recipe.config
    split = split or next(iter(data_set.splits))
    choose(f"split of {dataset}", split, tuple(data_set.splits))
    config.data.name = data_set.name
    config.data.train_split = data_set.splits[split]
    config.strict_crop = True  # Verified: released code; crops are k·output_stride + 1.
    config.evaluation.size = data_set.evaluation_size
    if dataset == "cityscapes":
        config.evaluation.batch_size = 1  # Images of 1025 × 2049 pixels require much memory.
    if "val" in config.data.train_split.split("+"):
        recipe.open["data.validation_split"] = (
            "val is part of the training data: the papers evaluate such networks on the test server"
        )


# Model fields of published image classifiers, where they differ from the defaults of the backbone.
# Networks that start from the weights of a classifier must have the same values of these fields.
CONVENTIONS = {
    "vgg16_imagenet": {"preprocessing": "vgg_mean"},
    "torchvision_vgg16_imagenet": {"preprocessing": "mean_std"},
} | {
    f"{publisher}resnet{depth}_{weights}": {"stride_placement": place, "preprocessing": pixels}
    for publisher, weights, place, pixels in (
        ("", "imagenet", "slim", "mean"),
        ("torchvision_", "imagenet", "torchvision", "mean_std"),
        ("torchvision_", "v2_imagenet", "torchvision", "mean_std"),
    )
    for depth in (50, 101)
}


def start_from(recipe: Recipe, init: str, parts: str) -> None:
    """Sets the initial weights of a recipe.

    If the weights are those of an image classifier in CONVENTIONS, model fields such as
    `preprocessing` are also set to the values with which the classifier was trained.

    Args:
      recipe: recipe to change.
      init: weights to start from, a value of `training.init_from`; empty or `none`: random
        initialization.
      parts: layers that receive these weights, a value of `training.init_scope`.
    """
    if init and init != "none":
        recipe.config.training.init_from = init
        recipe.config.training.init_scope = parts
        for field, value in CONVENTIONS.get(init, {}).items():
            recipe.config.model[field] = value


def start_from_vgg(recipe: Recipe, init: str) -> None:
    """Sets the initial weights of a recipe with a VGG-16 backbone.

    Args:
      recipe: recipe to change.
      init: weights to start from, a value of `training.init_from`; empty or `none`: random
        initialization. The layers fc6 and fc7 of a published VGG-16 image classifier are subsampled
        to the shapes that they have in the network (DeepLab v1, section 3.2). From any other model,
        all variables with equal name and shape are loaded.
    """
    # Verified: DeepLab v1, section 3.2: the kernel of fc6 is subsampled, and random filters of fc6
    # and fc7 are kept.
    start_from(recipe, init, "vgg_decimated" if init in CONVENTIONS else "matching")
    if init in CONVENTIONS:
        recipe.open["training.init_scope"] = (
            "derived: the kept rows, columns and filters are not published, nor whether they are "
            "the same in all ASPP branches"
        )


def need_init(init: str, what: str) -> None:
    """Checks that the argument `init` of a recipe names a model.

    Args:
      init: value of the argument; empty if it is not given.
      what: start of the error message, the reason why the argument is required.

    Raises:
      DeepLabError: `init` is empty, or `none` (random initialization).
    """
    if init in ("", "none"):
        raise DeepLabError(
            f"{what}; set init to the workdir of a training run or to a model directory, as in "
            "init=runs/first"
        )


def choose(what: str, name: str, legal: tuple[str, ...]) -> None:
    """Checks that an argument of a recipe has a legal value.

    Args:
      what: name of the argument, such as `backbone`, for the error message.
      name: value of the argument, such as `resnet_101`.
      legal: all legal values.

    Raises:
      DeepLabError: the value is not legal; the message lists the legal ones.
    """
    if name not in legal:
        raise unknown_name(what, name, legal)
