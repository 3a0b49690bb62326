"""Published weights: read, renamed, and turned into models of this code."""

from deeplab_jax.pretrained.conversion import Conversion, convert

__all__ = ["Conversion", "convert"]
