"""Published weights: found, downloaded, read, renamed, and turned into models of this code."""

from deeplab_jax.pretrained.catalog import PretrainedModel, find_pretrained, list_pretrained
from deeplab_jax.pretrained.conversion import Conversion, convert
from deeplab_jax.pretrained.location import convert_source, locate

__all__ = [
    "Conversion",
    "PretrainedModel",
    "convert",
    "convert_source",
    "find_pretrained",
    "list_pretrained",
    "locate",
]
