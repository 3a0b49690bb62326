"""Settings and notes that several tables of DeepLab v2 with ResNet-101 use."""

from deeplab_jax.configs._recipes import CONVENTIONS

from experiments.table import Training

NO_SCALING = {"augmentation.min_scale": 1.0, "augmentation.max_scale": 1.0}
# Stride placement and preprocessing of the ImageNet weights. A network that is trained from these
# weights keeps them.
AS_STARTED = {f"model.{field}": value for field, value in CONVENTIONS["resnet101_imagenet"].items()}
# The paper does not describe the training on COCO; the settings for VOC are used.
ON_COCO = Training(
    "deeplab_v2:head=plain",
    {"data.name": "coco_voc", "data.train_split": "train", "evaluation.size": (641, 641)},
)
COCO_NOTE = "The paper does not describe the training on COCO. Here, it has the settings for VOC."
AUGMENTATION_NOTE = (
    "The paper does not state which rows use random scaling. Here, the rows with LargeFOV or ASPP "
    "use it."
)
