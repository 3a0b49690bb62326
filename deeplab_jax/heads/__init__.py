"""What stands between a backbone's features and the classifier."""

from deeplab_jax.heads.aspp import ASPP
from deeplab_jax.heads.auxiliary import AuxiliaryHead
from deeplab_jax.heads.decoder import Decoder, TwoStageDecoder
from deeplab_jax.heads.dense_prediction_cell import DensePredictionCell
from deeplab_jax.heads.image_pooling import ImagePooling
from deeplab_jax.heads.large_fov import FullyConnected
from deeplab_jax.heads.lite_reduced_aspp import LiteReducedASPP
from deeplab_jax.heads.multi_scale_features import MultiScaleFeatures
from deeplab_jax.heads.spatial_pyramid import SpatialPyramidPooling
from deeplab_jax.heads.summed_aspp import SummedASPP

__all__ = [
    "ASPP",
    "AuxiliaryHead",
    "Decoder",
    "DensePredictionCell",
    "FullyConnected",
    "ImagePooling",
    "LiteReducedASPP",
    "MultiScaleFeatures",
    "SpatialPyramidPooling",
    "SummedASPP",
    "TwoStageDecoder",
]
