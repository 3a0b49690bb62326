"""Naming conventions of other codebases, in the order in which they are tried on a weights file."""

from deeplab_jax.pretrained.name_maps.caffe_exports import CAFFE_EXPORTS
from deeplab_jax.pretrained.name_maps.efficientnet import EFFICIENTNET_PYTORCH
from deeplab_jax.pretrained.name_maps.huggingface import HUGGING_FACE
from deeplab_jax.pretrained.name_maps.jfzhang95 import JFZHANG95
from deeplab_jax.pretrained.name_maps.mmsegmentation import MMSEGMENTATION
from deeplab_jax.pretrained.name_maps.segmentation_models import SEGMENTATION_MODELS
from deeplab_jax.pretrained.name_maps.tensorflow import TENSORFLOW
from deeplab_jax.pretrained.name_maps.timm import TIMM
from deeplab_jax.pretrained.name_maps.torchvision import TORCHVISION
from deeplab_jax.pretrained.name_maps.vainf import VAINF

CONVENTIONS = (
    *(TENSORFLOW, HUGGING_FACE, *SEGMENTATION_MODELS, MMSEGMENTATION, VAINF, JFZHANG95),
    *(*CAFFE_EXPORTS, TIMM, EFFICIENTNET_PYTORCH, TORCHVISION),
)
