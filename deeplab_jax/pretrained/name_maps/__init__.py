"""How other codes name the variables of the networks here."""

from deeplab_jax.pretrained.name_maps.caffe_exports import CAFFE_EXPORTS
from deeplab_jax.pretrained.name_maps.huggingface import HUGGING_FACE
from deeplab_jax.pretrained.name_maps.rules import (
    IMAGE_CLASSIFIER,
    Convention,
    Identified,
    Rule,
    Scopes,
    translate,
)
from deeplab_jax.pretrained.name_maps.tensorflow import TENSORFLOW
from deeplab_jax.pretrained.name_maps.timm import TIMM
from deeplab_jax.pretrained.name_maps.torchvision import TORCHVISION

# In the order in which they are tried.
CONVENTIONS = (TENSORFLOW, HUGGING_FACE, *CAFFE_EXPORTS, TIMM, TORCHVISION)

__all__ = [
    "CONVENTIONS",
    "IMAGE_CLASSIFIER",
    "Convention",
    "Identified",
    "Rule",
    "Scopes",
    "translate",
]
