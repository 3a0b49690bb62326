"""Flax modules from which backbones, heads and decoders are built."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".batch_norm": "refuse_single_values",
        ".conv_norm": "ConvNorm Form Normalization SeparableConvNorm check_widths",
        ".convolution": "Classifier Convolution is_convolution record_inputs",
        ".residual": ("GlobalResponseNorm LayerNorm SqueezeExcitation StochasticDepth depth_rates"),
    },
)
