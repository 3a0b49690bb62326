"""Pure functions on arrays: convolutions and resizing, as each platform does them best."""

from deeplab_jax.ops.convolution import convolution
from deeplab_jax.ops.depthwise import depthwise_convolution
from deeplab_jax.ops.dispatch import is_portable, plain, portable, split_batch
from deeplab_jax.ops.integers import integer_convolution, quantize
from deeplab_jax.ops.joined_maps import JoinedMaps, as_array
from deeplab_jax.ops.resize import (
    MEAN_NAME,
    RESIZE_NAMES,
    ResizedRows,
    argmax_of_resized,
    mean_over_map,
    mean_over_windows,
    parse_windows_name,
    resize_bilinear,
    scaled_size,
)
from deeplab_jax.ops.xla_convolution import Padding, Rate, same_padding, symmetric_padding

__all__ = [
    "MEAN_NAME",
    "RESIZE_NAMES",
    "JoinedMaps",
    "Padding",
    "Rate",
    "ResizedRows",
    "argmax_of_resized",
    "as_array",
    "convolution",
    "depthwise_convolution",
    "integer_convolution",
    "is_portable",
    "mean_over_map",
    "mean_over_windows",
    "parse_windows_name",
    "plain",
    "portable",
    "quantize",
    "resize_bilinear",
    "same_padding",
    "scaled_size",
    "split_batch",
    "symmetric_padding",
]
