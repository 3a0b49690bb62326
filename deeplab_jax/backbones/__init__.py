"""Backbones, which compute features of an image: VGG-16, ResNet, Xception and MobileNet."""

from deeplab_jax.backbones.atrous import Feature
from deeplab_jax.backbones.entries import BACKBONES, BackboneEntry, find_backbone

__all__ = [
    "BACKBONES",
    "BackboneEntry",
    "Feature",
    "find_backbone",
]
