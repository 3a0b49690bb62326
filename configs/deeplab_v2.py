"""DeepLab v2 on PASCAL VOC 2012 and other datasets (arXiv 1606.00915).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/deeplab_v2.py --workdir=runs/deeplab_v2
  deeplab-jax train --config=configs/deeplab_v2.py:backbone=vgg_16 --workdir=runs/deeplab_v2_vgg

Number of steps: 20,000; 6,000 with schedule=step; 100,000 on COCO-Stuff. With ResNet-101, gradients
are accumulated over microbatches of one image, as on the single GPU of the authors.

Mean IoU on val in the paper, with CRF in parentheses; not reproduced here:
* VOC, VGG-16 (table 3): large_fov 65.76 (69.84), aspp_small 66.98 (69.73), aspp_large 68.96
  (71.57). large_fov with schedule=step: 62.25 (table 2).
* VOC, ResNet-101 pretrained on COCO (table 4): plain 74.87, large_fov 75.54, aspp_large 76.35
  (77.69).
* PASCAL-Context (table 6): VGG-16 large_fov 37.6 (39.6), ResNet-101 44.7 (45.7).
* PASCAL-Person-Part (table 7), ResNet-101: plain 64.40 (64.94), aspp_large 62.76.
* Cityscapes (table 9), ResNet-101, without `msc`: 71.0 (71.4).
* COCO-Stuff, VGG-16: 33.2, reported by the authors of that dataset.

Arguments:
* `dataset`: voc (default), pascal_context, pascal_person_part, cityscapes or coco_stuff.
* `split`: training split. VOC: train_aug (default), train, trainval or trainval_aug. Cityscapes:
  train (default), trainval, train_coarse or trainval_coarse. Other datasets: train.
* `backbone`: resnet_101 (default) or vgg_16.
* `head`: aspp_large (default), large_fov, aspp_small (only VGG) or plain (only ResNet).
* `msc`: whether the network processes each image at three scales and fuses the results: true
  (ResNet only), false or auto (default: as in the paper, true on ResNet except on Cityscapes).
* `schedule`: poly (default) or step.
* `init`: weights to start from (default: the backbone trained on ImageNet); `none`: random
  initialization.
* `steps`: number of training steps (default: see above).
"""

from deeplab_jax.configs._recipes import (
    CONVENTIONS,
    Recipe,
    choose,
    start_from,
    start_from_vgg,
    use_data,
)
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError

DATA_SETS = ("voc", "pascal_context", "pascal_person_part", "cityscapes", "coco_stuff")
# Verified: scales in the released network.
SCALES = (1.0, 0.75, 0.5)
HEADS = {
    "vgg_16": ("large_fov", "aspp_small", "aspp_large"),
    "resnet_101": ("plain", "large_fov", "aspp_large"),
}


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    return recipe(text).config


def recipe(text: str | None = None) -> Recipe:
    """Returns the `Recipe` for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(
        text,
        dataset="voc",
        split="",
        backbone="resnet_101",
        head="aspp_large",
        msc="auto",
        schedule="poly",
        init="",
        steps=0,
    )
    choose("backbone", given.backbone, tuple(HEADS))
    choose(f"head of {given.backbone}", given.head, HEADS[given.backbone])
    made = Recipe()
    use_data(made, given.dataset, given.split, DATA_SETS)
    _network(made, given)
    _training(made, given)
    (_on_vgg if given.backbone == "vgg_16" else _on_resnet)(made, given)
    return made


def _network(made: Recipe, given: ConfigDict) -> None:
    model = made.config.model
    model.architecture = "deeplab_v2"
    model.backbone = given.backbone
    head, _, size = given.head.partition("_")
    if head == "aspp":
        model.aspp = size  # Verified: paper, section 4.1.2: 2, 4, 8, 12 or 6, 12, 18, 24.
    else:
        model.head = given.head


def _training(made: Recipe, given: ConfigDict) -> None:
    config = made.config
    config.augmentation.crop_size = (321, 321)  # Verified: released code.
    # Verified: paper, section 4.1.2, and released code: scales 0.5, 0.75, 1, 1.25 and 1.5.
    config.augmentation.min_scale, config.augmentation.max_scale = 0.5, 1.5
    config.augmentation.scale_step = 0.25
    config.loss.upsample_logits = False  # Verified: released code.
    config.optimizer.weight_decay = 5e-4  # Verified: paper, section 4.1; not of biases.
    # Verified: released code: 10 and 20 for kernels and biases of the classifiers (fc8, in every
    # branch of ASPP), 1 and 2 for all other layers.
    config.optimizer.multipliers.classifier = 10.0
    config.optimizer.multipliers.bias = 2.0
    choose("schedule", given.schedule, ("poly", "step"))
    config.schedule.name = given.schedule
    # Verified: paper, table 2: 62.25 with `step`, batch size 30 and 6,000 steps; 65.88 with `poly`,
    # batch size 10 and 20,000 steps.
    step = given.schedule == "step"
    config.training.batch_size = 30 if step else 10
    config.training.num_steps = given.steps or (6000 if step else 20_000)
    if given.dataset == "coco_stuff":
        # Verified: web page of the dataset, for VGG-16.
        config.training.num_steps = given.steps or 100_000
    if given.dataset != "voc":
        for field in ("augmentation.crop_size", "training.num_steps"):
            made.open[field] = f"as on VOC: no source read for {given.dataset}"
    if given.dataset == "coco_stuff":
        del made.open["training.num_steps"]


def _on_vgg(made: Recipe, given: ConfigDict) -> None:
    config = made.config
    if given.msc == "true":
        raise DeepLabError(
            "msc=true requires backbone=resnet_101 (DeepLab v2, section 4.1.2); omit msc, or set "
            "backbone=resnet_101"
        )
    config.schedule.base_learning_rate = 1e-3  # Verified: paper, section 4.1.
    if given.head == "large_fov":
        # Verified: paper, table 2: the only augmentation is flipping and cropping.
        config.augmentation.min_scale = config.augmentation.max_scale = 1.0
    else:
        made.open["augmentation.min_scale"] = "not in the paper for ASPP on VGG-16"
        made.open["model.fc_channels"] = "from memory: 1024 in every branch"
    start_from_vgg(made, given.init or "vgg16_imagenet")


def _on_resnet(made: Recipe, given: ConfigDict) -> None:
    config = made.config
    config.schedule.base_learning_rate = 2.5e-4  # Verified: released code.
    # Verified: released code: batches of 1, accumulated over iter_size = 10.
    config.training.accumulation_steps = config.training.batch_size
    # Verified: released code: the loss of each image is divided by its number of valid pixels.
    config.loss.normalization = "images"
    # Verified: released code: statistics, scales and offsets are frozen.
    config.model.frozen_batch_norm = True
    config.optimizer.multipliers.norm = 0.0
    _scales(made, given)
    init = given.init or "resnet101_imagenet"
    start_from(made, init, "backbone" if init in CONVENTIONS else "matching")
    made.open["training.init_from"] = (
        "the released recipe starts from weights trained on COCO, and the first rows in the paper "
        "start from MSRA's ImageNet weights; neither of them is in the catalog"
    )
    made.open["model.stride_placement"] = (
        "as in the weights of the catalog, not as in Caffe"
        if init in CONVENTIONS
        else "as released (Caffe); it must be that of the initial weights"
    )


def _scales(made: Recipe, given: ConfigDict) -> None:
    choose("msc", given.msc, ("auto", "true", "false"))
    # Verified: paper, table 9 and its text: a single scale on Cityscapes, to save memory.
    if given.msc == "true" or (given.msc == "auto" and given.dataset != "cityscapes"):
        made.config.model.multi_scale = SCALES
        # Verified: released code: four losses of weight 1, on the fused scores and on each scale.
        made.config.loss.supervise_all_scales = True
