"""The Flax modules that every backbone, head and decoder is built of."""

from deeplab_jax.layers.conv_norm import (
    REMAT,
    ConvNorm,
    Form,
    Normalization,
    SeparableConvNorm,
    check_widths,
    refuse_single_values,
)
from deeplab_jax.layers.convolution import Classifier, Convolution, is_convolution, record_inputs

__all__ = [
    "REMAT",
    "Classifier",
    "ConvNorm",
    "Convolution",
    "Form",
    "Normalization",
    "SeparableConvNorm",
    "check_widths",
    "is_convolution",
    "record_inputs",
    "refuse_single_values",
]
