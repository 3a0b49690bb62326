"""The networks that turn an image into features."""

from deeplab_jax.backbones.catalog import BACKBONES, BackboneEntry, find_backbone
from deeplab_jax.backbones.features import Feature

__all__ = ["BACKBONES", "BackboneEntry", "Feature", "find_backbone"]
