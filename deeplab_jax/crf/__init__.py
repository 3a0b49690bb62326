"""Fully connected CRFs: class scores refined by colours and positions."""

from deeplab_jax.crf.dense_crf import DIRECT_PIXELS, dense_crf
from deeplab_jax.crf.direct import AllPairs
from deeplab_jax.crf.features import bilateral_features, position_features
from deeplab_jax.crf.lattice import Lattice, build_lattice
from deeplab_jax.crf.mean_field import Kernel, mean_field, normalized
from deeplab_jax.crf.parameters import PARAMETERS, CRFParameters, crf_parameters

__all__ = [
    "DIRECT_PIXELS",
    "PARAMETERS",
    "AllPairs",
    "CRFParameters",
    "Kernel",
    "Lattice",
    "bilateral_features",
    "build_lattice",
    "crf_parameters",
    "dense_crf",
    "mean_field",
    "normalized",
    "position_features",
]
