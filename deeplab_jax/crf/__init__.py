"""Fully connected (dense) CRFs, which refine class scores by pixel colors and positions."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".dense": "DIRECT_PIXELS dense_crf dense_crf_of_weights",
        ".lattice": "Lattice build_lattice",
        ".mean_field": "AllPairs Kernel bilateral_features normalized position_features",
        ".parameters": "PARAMETERS CRFParameters check_parameters crf_parameters",
    },
)
