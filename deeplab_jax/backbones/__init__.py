"""The networks that turn an image into features."""

from deeplab_jax.backbones.atrous import Feature
from deeplab_jax.backbones.catalog import BACKBONES, BackboneEntry, find_backbone
from deeplab_jax.backbones.mobilenet import InvertedResidual
from deeplab_jax.backbones.resnet import ResidualUnit
from deeplab_jax.backbones.xception import XceptionModule

# What deep backbones repeat; VGG has none.
UNITS = (ResidualUnit, XceptionModule, InvertedResidual)

__all__ = [
    "BACKBONES",
    "UNITS",
    "BackboneEntry",
    "Feature",
    "find_backbone",
]
