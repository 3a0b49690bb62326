"""What stands between a backbone's features and the classifier."""

from deeplab_jax.heads.aspp import ASPP
from deeplab_jax.heads.decoder import Decoder
from deeplab_jax.heads.image_pooling import ImagePooling

__all__ = ["ASPP", "Decoder", "ImagePooling"]
