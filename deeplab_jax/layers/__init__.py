"""The Flax modules that every backbone, head and decoder is built of."""

from deeplab_jax.layers.conv_norm import ConvNorm, Normalization, narrowed, refuse_single_values
from deeplab_jax.layers.convolution import Classifier, Convolution
from deeplab_jax.layers.quantized import is_convolution, quantized
from deeplab_jax.layers.scanned import run_units
from deeplab_jax.layers.separable import SeparableConvNorm

__all__ = [
    "Classifier",
    "ConvNorm",
    "Convolution",
    "Normalization",
    "SeparableConvNorm",
    "is_convolution",
    "narrowed",
    "quantized",
    "refuse_single_values",
    "run_units",
]
