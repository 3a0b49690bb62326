"""Shared parts of the papers' recipes: datasets, initial weights, and open points.

Comments in the recipes say where a value comes from and how sure it is:

* verified: read in the source that is named, a paper or the authors' released code;
* derived: follows from verified facts, by a step that the comment states;
* from memory: nobody here has read it in its source;
* open: the source does not say, or this code cannot do it. `Recipe.open` names each such point.
"""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError, unknown_name


@dataclasses.dataclass
class Recipe:
    """A config with what is not settled in it.

    Attributes:
      config: to train with.
      open: why, by the config's field; by a few words where no field can express the point.
    """

    config: ConfigDict = dataclasses.field(default_factory=configs.default)
    open: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A dataset as the papers use it.

    Attributes:
      name: under which it is prepared.
      splits: what `data.train_split` is, by the papers' name; the first is the usual one.
      evaluation_size: (height, width) that images are padded to, as in the released code.
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
            # Derived: val's masks are VOC's own, as those of SBD may not hold all of val.
            "trainval_aug": "train_aug+val",
        },
        (513, 513),  # Verified: released code; the largest image has 500 pixels.
    ),
    "cityscapes": DataSet(
        "cityscapes",
        {
            "train": "train",  # 2,975 fine annotations.
            "trainval": "train+val",  # 3,475.
            # Verified: the released lists' 22,973 and 23,473 images are the sums of the fine sets
            # and the 19,998 images that are annotated coarsely only.
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
    """Sets what to train and to validate on.

    Args:
      recipe: to change.
      dataset: one of `legal`.
      split: the papers' name; empty for the usual one.
      legal: the datasets that a paper used.

    Raises:
      DeepLabError: another dataset or split.
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
        config.evaluation.batch_size = 1  # Memory: 1025 × 2049 pixels.
    if "val" in config.data.train_split.split("+"):
        recipe.open["data.validation_split"] = (
            "val is trained on: the papers measure such networks on the test server"
        )


# How published classifiers were trained where that is not what their backbone has by default here:
# what starts from them takes it over.
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
    """Sets the weights to start from; nothing for an empty name, or `none`."""
    if init and init != "none":
        recipe.config.training.init_from = init
        recipe.config.training.init_scope = parts
        for field, value in CONVENTIONS.get(init, {}).items():
            recipe.config.model[field] = value


def start_from_vgg(recipe: Recipe, init: str) -> None:
    """Sets VGG-16's weights to start from, fc6 and fc7 narrowed, or a network that fits."""
    # Verified: DeepLab v1, section 3.2: fc6 is decimated in space, of the filters of fc6 and fc7 a
    # random part is kept.
    start_from(recipe, init, "vgg_decimated" if init in CONVENTIONS else "matching")
    if init in CONVENTIONS:
        recipe.open["training.init_scope"] = (
            "derived: which rows, columns and filters stay is not published, nor whether ASPP's "
            "branches keep the same"
        )


def need_init(init: str, what: str) -> None:
    """Checks that a network to go on from was named.

    Raises:
      DeepLabError: it was not.
    """
    if not init:
        raise DeepLabError(f"{what}: name it, as in init=runs/first (a workdir or model directory)")


def choose(what: str, name: str, legal: tuple[str, ...]) -> None:
    """Checks the value of an argument.

    Raises:
      DeepLabError: it is none of the legal ones; they are named.
    """
    if name not in legal:
        raise unknown_name(what, name, legal)
