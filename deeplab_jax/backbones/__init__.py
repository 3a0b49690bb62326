"""Backbones, which compute the features of an image, and their registry."""

from deeplab_jax.backbones.atrous import Feature
from deeplab_jax.backbones.entries import BACKBONES, BackboneEntry, find_backbone

__all__ = [
    "BACKBONES",
    "BackboneEntry",
    "Feature",
    "find_backbone",
]
