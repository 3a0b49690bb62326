"""Shared parts of the ResNet-101 tables of DeepLab v2."""

from deeplab_jax.configs._recipes import CONVENTIONS

from experiments.table import Training

NO_SCALING = {"augmentation.min_scale": 1.0, "augmentation.max_scale": 1.0}
# A network trained from ImageNet weights keeps their strides and pixels.
AS_STARTED = {f"model.{field}": value for field, value in CONVENTIONS["resnet101_imagenet"].items()}
# How the authors trained on COCO was not read in a source: as on VOC.
ON_COCO = Training(
    "deeplab_v2:head=plain",
    {"data.name": "coco_voc", "data.train_split": "train", "evaluation.size": (641, 641)},
)
COCO_NOTE = "How the network was trained on COCO is not known: here as on VOC."
AUGMENTATION_NOTE = (
    "Which rows scale their images is not known: here those of the full recipe "
    "(with LargeFOV or ASPP) alone."
)
