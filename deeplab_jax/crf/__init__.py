"""Fully connected CRFs: class scores refined by colours and positions."""

from deeplab_jax.crf.dense_crf import DIRECT_PIXELS, dense_crf, dense_crf_of_weights
from deeplab_jax.crf.lattice import Lattice, build_lattice
from deeplab_jax.crf.mean_field import (
    AllPairs,
    Kernel,
    bilateral_features,
    mean_field,
    normalized,
    position_features,
)
from deeplab_jax.crf.parameters import PARAMETERS, CRFParameters, check_parameters, crf_parameters

__all__ = [
    "DIRECT_PIXELS",
    "PARAMETERS",
    "AllPairs",
    "CRFParameters",
    "Kernel",
    "Lattice",
    "bilateral_features",
    "build_lattice",
    "check_parameters",
    "crf_parameters",
    "dense_crf",
    "dense_crf_of_weights",
    "mean_field",
    "normalized",
    "position_features",
]
