"""Convolution and resizing of arrays, with implementations for CPUs, GPUs and TPUs."""

from deeplab_jax.ops.channels import (
    GELU_NAME,
    gelu,
    parse_channels_name,
    relative_norms,
    standardize_channels,
)
from deeplab_jax.ops.convolution import convolution
from deeplab_jax.ops.depthwise import depthwise_convolution
from deeplab_jax.ops.dispatch import (
    Dispatch,
    KernelShards,
    constrain_rows,
    dispatching,
    exporting,
    is_sharded,
)
from deeplab_jax.ops.integers import integer_convolution, quantize
from deeplab_jax.ops.joined_maps import JoinedMaps, as_array
from deeplab_jax.ops.means import (
    MEAN_NAME,
    PAIRS_NAME,
    mean_over_map,
    mean_over_pairs,
    mean_over_windows,
    parse_windows_name,
)
from deeplab_jax.ops.resize import RESIZE_NAMES, resize_bilinear, scaled_size
from deeplab_jax.ops.resized_rows import ResizedRows, argmax_of_resized
from deeplab_jax.ops.sharded_rows import HaloMaps, with_halo
from deeplab_jax.ops.xla_convolution import Padding, Rate, Size, same_padding, symmetric_padding

__all__ = [
    "GELU_NAME",
    "MEAN_NAME",
    "PAIRS_NAME",
    "RESIZE_NAMES",
    "Dispatch",
    "HaloMaps",
    "JoinedMaps",
    "KernelShards",
    "Padding",
    "Rate",
    "ResizedRows",
    "Size",
    "argmax_of_resized",
    "as_array",
    "constrain_rows",
    "convolution",
    "depthwise_convolution",
    "dispatching",
    "exporting",
    "gelu",
    "integer_convolution",
    "is_sharded",
    "mean_over_map",
    "mean_over_pairs",
    "mean_over_windows",
    "parse_channels_name",
    "parse_windows_name",
    "quantize",
    "relative_norms",
    "resize_bilinear",
    "same_padding",
    "scaled_size",
    "standardize_channels",
    "symmetric_padding",
    "with_halo",
]
