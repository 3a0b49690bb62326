"""Heads and decoders, the parts of a network between the backbone and the classifier."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".aspp": "ASPP ImagePooling LargeFOV SpatialPyramidPooling SummedASPP",
        ".auxiliary": "AuxiliaryHead",
        ".decoder": "Decoder MultiScaleFeatures TwoStageDecoder",
        ".dense_prediction_cell": "DensePredictionCell",
        ".lite_reduced_aspp": "LiteReducedASPP",
    },
)
