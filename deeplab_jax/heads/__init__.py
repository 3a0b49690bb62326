"""What stands between a backbone's features and the classifier."""

from deeplab_jax.heads.aspp import (
    ASPP,
    ImagePooling,
    LargeFOV,
    SpatialPyramidPooling,
    SummedASPP,
)
from deeplab_jax.heads.auxiliary import AuxiliaryHead
from deeplab_jax.heads.decoder import Decoder, MultiScaleFeatures, TwoStageDecoder
from deeplab_jax.heads.dense_prediction_cell import DensePredictionCell
from deeplab_jax.heads.lite_reduced_aspp import LiteReducedASPP

__all__ = [
    "ASPP",
    "AuxiliaryHead",
    "Decoder",
    "DensePredictionCell",
    "ImagePooling",
    "LargeFOV",
    "LiteReducedASPP",
    "MultiScaleFeatures",
    "SpatialPyramidPooling",
    "SummedASPP",
    "TwoStageDecoder",
]
