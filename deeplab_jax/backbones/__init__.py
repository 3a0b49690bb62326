"""The networks that turn an image into features."""

from deeplab_jax.backbones.catalog import BACKBONES, BackboneEntry, find_backbone
from deeplab_jax.backbones.features import Feature
from deeplab_jax.backbones.resnet import STRIDE_PLACEMENTS

__all__ = ["BACKBONES", "STRIDE_PLACEMENTS", "BackboneEntry", "Feature", "find_backbone"]
