"""DeepLab v3 on PASCAL VOC 2012, Cityscapes and COCO (arXiv 1706.05587).

  deeplab-jax prepare voc_segmentation --source=path/to/VOC2012 --data_dir=data
  deeplab-jax train --config=configs/deeplab_v3.py --workdir=runs/deeplab_v3
  deeplab-jax train --config=configs/deeplab_v3.py:stage=2,init=runs/deeplab_v3 \\
    --workdir=runs/stage_2

Stage 1 trains at output stride 16 with batch normalization. Stage 2 continues at output stride 8
with frozen batch normalization, on trainval, in which images of rare classes appear twice. The
authors submitted the network after stage 2 to the test server.

Number of steps: 30,000 on VOC, 90,000 on Cityscapes, 500,000 on COCO, with 16 crops of 513 × 513
(Cityscapes: 769 × 769) per batch. Training took the authors 3.65 days on one K80 GPU and 2.74 hours
on 32 (table 11).

Mean IoU on val in the paper, not reproduced here. "Scales and flips" means that predictions are
averaged over several input scales and over flipped images.
* VOC (table 6): 77.21 at output stride 16, 78.51 at 8, 79.77 at 8 with scales and flips. Trained on
  COCO first: 82.70 at 8 with scales and flips. On the test set after stage 2: 85.7 (table 7).
* VOC, head=cascade: 76.66 at output stride 16 (table 3). On ResNet-50 without multi-grid: 73.88
  (table 2).
* Cityscapes (table 12): 77.23 at output stride 16, 79.30 at 8 with scales and flips. On the test
  set, trained on trainval_coarse: 81.3 (table 13).

Arguments:
* `dataset`: voc (default), cityscapes or coco_voc.
* `split`: training split. VOC: train_aug (default), train, trainval or trainval_aug. Cityscapes:
  train (default), trainval, train_coarse or trainval_coarse. COCO: train.
  In stage 2, the default is trainval.
* `stage`: 1 (default) or 2 (VOC only).
* `backbone`: resnet_101_beta (default), resnet_50_beta, resnet_101 or resnet_50.
* `head`: aspp (default) or cascade.
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

DATA_SETS = ("voc", "cityscapes", "coco_voc")
BACKBONES = ("resnet_101_beta", "resnet_50_beta", "resnet_101", "resnet_50")


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    return recipe(text).config


def recipe(text: str | None = None) -> Recipe:
    """Returns the `Recipe` for the arguments in `text`; the module docstring lists them."""
    given = configs.arguments(
        text, head="aspp", **atrous.ARGUMENTS | {"backbone": "resnet_101_beta"}
    )
    choose("backbone", given.backbone, BACKBONES)
    choose("head", given.head, ("aspp", "cascade"))
    made = Recipe()
    use_data(made, given.dataset, atrous.training_split(given), DATA_SETS)
    _network(made.config.model, given)
    atrous.train(made, given)
    return made


def _network(model: ConfigDict, given: ConfigDict) -> None:
    model.architecture = "deeplab_v3"
    # Derived: the published numbers of parameters are those with the beta stem.
    model.backbone = given.backbone
    if given.head == "cascade":
        model.head = "cascade"  # Verified: paper, section 3.2; up to block7.
        model.multi_grid = (1, 2, 1)  # Verified: paper, table 3.
    else:
        model.multi_grid = (1, 2, 4)  # Verified: paper, table 5.
        model.image_pooling = "crop"  # Verified: released code; in the paper it is global.
