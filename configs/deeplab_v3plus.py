"""DeepLab v3+ on PASCAL VOC 2012, Cityscapes, ADE20K and COCO (arXiv 1802.02611).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/deeplab_v3plus.py --workdir=runs/deeplab_v3plus
  deeplab-jax train --config=configs/deeplab_v3plus.py:stage=2,init=runs/deeplab_v3plus \\
    --workdir=runs/stage_2

Stage 1 trains at output stride 16 with batch normalization. Stage 2 continues at output stride 8
with frozen batch normalization, on trainval, in which images of rare classes appear twice. In the
paper, the network after stage 2 was submitted to the test server.

Number of steps: 30,000 on VOC, 90,000 on Cityscapes, 150,000 on ADE20K, 500,000 on COCO, with 16
crops of 513 × 513 (Cityscapes: 769 × 769) per batch.

Mean IoU on val in the paper, not reproduced here. "Scales and flips" means that predictions are
averaged over several input scales and over flipped images.
* VOC, Xception-65 (table 5): 79.79 at output stride 16, and 81.39 at 8 with scales and flips.
  Trained on COCO first: 82.20 and 83.58. On the test set after stage 2: 87.8 (table 6).
* VOC, ResNet-101 (table 3): 78.85 at output stride 16, and 80.57 at 8 with scales and flips.
* Cityscapes (table 7a): Xception-65 79.14, Xception-71 79.55. On the test set with coarse labels:
  82.1.
* ADE20K, Xception-65, output stride 8 with scales and flips: 45.65 (released network).

Arguments:
* `dataset`: voc (default), cityscapes, ade20k or coco_voc.
* `split`: training split. VOC: train_aug (default), train, trainval or trainval_aug. Cityscapes:
  train (default), trainval, train_coarse or trainval_coarse. Other datasets: train.
  In stage 2, the default is trainval.
* `stage`: 1 (default) or 2 (VOC only).
* `backbone`: xception_65 (default), xception_71, xception_41, resnet_101_beta, resnet_50_beta,
  resnet_101 or resnet_50.
* `separable`: depthwise separable convolutions in the ASPP and the decoder: true, false or auto
  (default: true on Xception, false on ResNet).
* `from_coco`: whether stage 1 fine-tunes a network that was trained on coco_voc (default: false).
  If true, `init` is required and must name that network.
* `init`: weights to start from (default: the backbone trained on ImageNet); `none`: random
  initialization. Stage 2 requires the network of stage 1.
* `steps`: number of training steps (default: see above).
"""

from deeplab_jax.configs import _atrous_recipes as atrous
from deeplab_jax.configs._recipes import Recipe, choose, use_data
from ml_collections import ConfigDict

from deeplab_jax import config as configs

DATA_SETS = ("voc", "cityscapes", "ade20k", "coco_voc")
BACKBONES = (
    "xception_65",
    "xception_71",
    "xception_41",
    "resnet_101_beta",
    "resnet_50_beta",
    "resnet_101",
    "resnet_50",
)


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    return recipe(text).config


def recipe(text: str | None = None) -> Recipe:
    """Returns the `Recipe` for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(
        text, separable="auto", **atrous.ARGUMENTS | {"backbone": "xception_65"}
    )
    choose("backbone", given.backbone, BACKBONES)
    made = Recipe()
    use_data(made, given.dataset, atrous.training_split(given), DATA_SETS)
    _network(made, given)
    atrous.train(made, given)
    return made


def _network(made: Recipe, given: ConfigDict) -> None:
    model = made.config.model
    model.architecture = "deeplab_v3plus"
    model.backbone = given.backbone
    if given.backbone.startswith("resnet"):
        model.multi_grid = (1, 2, 4)  # Verified: DeepLab v3, table 5; v3+, table 3.
    choose("separable", given.separable, ("auto", "true", "false"))
    if given.separable != "auto":
        model.separable = given.separable == "true"
    # Verified: paper, table 7: on driving scenes, results are better without image pooling.
    # Elsewhere, released code: windows of the size of the crop.
    model.image_pooling = "none" if given.dataset == "cityscapes" else "crop"
