"""DeepLab with MobileNetV2 and V3, for mobile devices (arXiv 1801.04381 and 1905.02244).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/mobilenet.py --workdir=runs/mobilenet_v2
  deeplab-jax train --config=configs/mobilenet.py:backbone=mobilenet_v3_large,dataset=cityscapes \\
    --workdir=runs/mobilenet_v3

Number of steps, as for DeepLab v3 and v3+: 30,000 on VOC, 90,000 on Cityscapes, 150,000 on ADE20K,
500,000 on COCO, with 16 crops per batch.

Published mean IoU on val, not reproduced here. "Scales and flips" means that predictions are
averaged over several input scales and over flipped images.
* MobileNetV2 pretrained on COCO, on VOC (MobileNetV2 paper, table 7): 75.32 at output stride 16,
  and 77.33 at 8 with scales and flips. With `aspp`: 75.70 and 78.42. With width=0.5: 70.19
  (released network).
* MobileNetV2 pretrained on COCO, on Cityscapes: 70.71 at output stride 16, and 73.57 at 8 with
  scales and flips. MobileNetV2 on ADE20K: 32.04 (released networks).
* MobileNetV3 on Cityscapes: large 72.41, small 68.99 (released networks).

Arguments:
* `dataset`: voc (default), cityscapes, ade20k or coco_voc.
* `split`: training split. VOC: train_aug (default), train, trainval or trainval_aug. Cityscapes:
  train (default), trainval, train_coarse or trainval_coarse. Other datasets: train.
  In stage 2, the default is trainval.
* `stage`: 1 (default), or 2, which continues the training of stage 1 at output stride 8 with frozen
  batch normalization (MobileNetV2 on VOC only).
* `backbone`: mobilenet_v2 (default), mobilenet_v3_large or mobilenet_v3_small. MobileNetV3 requires
  dataset=cityscapes.
* `width`: depth multiplier of MobileNetV2 (default: 1). Numbers of channels are rounded down,
  whereas the released code rounds them to the nearest whole number. The results differ for 0.35,
  1.3 and 1.4.
* `aspp`: adds the 3×3 atrous branches to the head of MobileNetV2.
* `from_coco`: whether stage 1 fine-tunes a network that was trained on coco_voc (default: false).
  If true, `init` is required, and must be this network.
* `init`: weights to start from (default: MobileNetV2 trained on ImageNet, or random weights for
  MobileNetV3); `none`: random weights. Stage 2 requires the network of stage 1.
* `steps`: number of training steps (default: see above).
"""

from deeplab_jax.configs import _atrous_recipes as atrous
from deeplab_jax.configs._recipes import Recipe, choose, use_data
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError

DATA_SETS = ("voc", "cityscapes", "ade20k", "coco_voc")
BACKBONES = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    return recipe(text).config


def recipe(text: str | None = None) -> Recipe:
    """Returns the `Recipe` for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(
        text, aspp=False, width=1.0, **atrous.ARGUMENTS | {"backbone": "mobilenet_v2"}
    )
    choose("backbone", given.backbone, BACKBONES)
    third = given.backbone != "mobilenet_v2"
    if third and (given.aspp or given.width != 1):
        raise DeepLabError(
            "width and aspp require backbone=mobilenet_v2; omit them, or set backbone=mobilenet_v2"
        )
    made = Recipe()
    legal = ("cityscapes",) if third else DATA_SETS
    use_data(made, given.dataset, atrous.training_split(given), legal)
    (_third if third else _second)(made, given)
    atrous.train(made, given)
    return made


def _second(made: Recipe, given: ConfigDict) -> None:
    model, width = made.config.model, given.width
    model.backbone = "mobilenet_v2"
    model.depth_multiplier = width
    # Verified: released networks: image pooling and a 1×1 convolution; a decoder only on ADE20K.
    model.architecture = "deeplab_v3plus" if given.dataset == "ade20k" else "deeplab_v3"
    model.head = "aspp" if given.aspp else "pooling"
    model.image_pooling = "crop"
    if given.dataset == "ade20k":
        model.separable = True  # Derived: default in the released code; the file was not read.


def _third(made: Recipe, given: ConfigDict) -> None:
    model = made.config.model
    model.architecture = "deeplab_v3"
    # Verified: released networks: narrower last blocks, output stride 32, LR-ASPP of 128 channels.
    model.backbone = f"{given.backbone}_seg"
    model.output_stride = 32
    model.image_pooling = "crop"
    for field in ("training.num_steps", "training.batch_size", "schedule.base_learning_rate"):
        made.open[field] = "as DeepLab v3 on Cityscapes: the MobileNetV3 paper was not read"
