"""Backbone, head and decoder as an architecture describes them.

Called while a DeepLab is being traced, so the modules become its children.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import heads
from deeplab_jax.architecture import Architecture
from deeplab_jax.backbones import find_backbone
from deeplab_jax.layers import Classifier, Normalization

Maps = Mapping[str, jax.Array]
# (maps, train) → features or scores; (features, maps, train) → features.
Head = Callable[[Maps, bool], jax.Array]
Decoder = Callable[[jax.Array, Maps, bool], jax.Array]

# Of heads and decoders in the released code.
HEAD_NORMALIZATION = Normalization(decay=0.9997, epsilon=1e-5)
FOV_KERNELS = {"large": 3, "4x4": 4, "7x7": 7}


def make_backbone(options: Architecture) -> nn.Module:
    """Returns the backbone, a function of (normalised image, train)."""
    entry = find_backbone(options.backbone)
    given = {name: getattr(options, name) for name in entry.options}
    if options.widths or options.quantization != "none":
        # These go by the path of each layer, which a loop does not have.
        given.pop("scan_units", None)
    if entry.normalization is not None:
        given["normalization"] = backbone_normalization(options)
    return entry.module(
        output_stride=options.output_stride,
        dtype=jnp.dtype(options.dtype),
        name="backbone",
        **{name: value for name, value in given.items() if value is not None},
    )


def make_head(options: Architecture) -> Head:
    """Returns the head: what turns the backbone's maps into features, or into scores."""
    if options.head in ("plain", "cascade"):
        return lambda maps, train: maps["output"]
    if options.head == "large_fov" and not options.fc_channels:
        # The atrous convolution is the classifier.
        return lambda maps, train: maps["output"]
    module = _head_module(options)
    if options.head == "lr_aspp":
        finer = find_backbone(options.backbone).low_level[1].name
        return lambda maps, train: module(maps["output"], maps[finer], train)
    return lambda maps, train: module(maps["output"], train)


def _head_module(options: Architecture) -> nn.Module:
    common = {"dtype": jnp.dtype(options.dtype), "name": options.head}
    norm = {"normalization": normalization(options, HEAD_NORMALIZATION)}
    resizing = {"align_corners": options.align_corners}
    dropout = {"dropout_rate": options.dropout_rate}
    match options.head:
        case "large_fov":
            kernel_size, rate = FOV_KERNELS[options.fov], options.atrous_rates[0]
            return heads.FullyConnected(options.fc_channels, kernel_size, rate, **dropout, **common)
        case "aspp" if options.fusion == "sum":
            return heads.SummedASPP(
                options.num_classes,
                options.atrous_rates,
                options.fc_channels,
                **dropout,
                **common,
            )
        case "spp":
            return heads.SpatialPyramidPooling(
                options.aspp_channels, **dropout, **norm, **resizing, **common
            )
        case "dpc":
            return heads.DensePredictionCell(
                options.aspp_channels, options.output_stride, **dropout, **norm, **common
            )
        case "lr_aspp":
            return heads.LiteReducedASPP(
                options.num_classes,
                options.aspp_channels,
                options.output_stride,
                window=options.pooling_window,
                **norm,
                **resizing,
                **common,
            )
    return heads.ASPP(
        rates=options.atrous_rates if options.head == "aspp" else (),
        channels=options.aspp_channels,
        image_pooling=options.image_pooling != "none",
        pooling_window=options.pooling_window,
        separable=options.separable,
        **dropout,
        **norm,
        **resizing,
        **common,
    )


def make_decoder(options: Architecture) -> Decoder:
    """Returns the decoder: what refines features with the help of finer maps."""
    if options.decoder == "none":
        return lambda features, maps, train: features
    entry = find_backbone(options.backbone)
    common: dict[str, Any] = {"dtype": jnp.dtype(options.dtype), "name": "decoder"}
    if options.decoder == "msc":
        return _multi_scale_features(options, **common)
    make = heads.Decoder if options.decoder == "v3plus" else heads.TwoStageDecoder
    module = make(
        low_level_channels=options.low_level_channels,
        convolutions=options.decoder_convs,
        separable=options.separable,
        normalization=normalization(options, HEAD_NORMALIZATION),
        align_corners=options.align_corners,
        **common,
    )
    conv2, conv3 = (feature.name for feature in entry.low_level[:2])
    names = (conv2,) if options.decoder == "v3plus" else (conv3, conv2)
    return lambda features, maps, train: module(features, *(maps[name] for name in names), train)


def _multi_scale_features(options: Architecture, **common: Any) -> Decoder:
    sources = find_backbone(options.backbone).intermediate
    reached = [1, *(min(source.stride, options.output_stride) for source in sources)]
    module = heads.MultiScaleFeatures(
        tuple(options.output_stride // stride for stride in reached), **common
    )
    names = ["image", *(source.name for source in sources)]
    return lambda features, maps, train: module(features, [maps[name] for name in names], train)


def make_classifier(options: Architecture) -> nn.Module:
    """Returns the classifier; atrous where it is the whole head (DeepLab v2's LargeFOV)."""
    make = partial(
        Classifier, options.num_classes, dtype=jnp.dtype(options.dtype), name="classifier"
    )
    if options.head == "large_fov" and not options.fc_channels:
        return make(FOV_KERNELS[options.fov], rate=options.atrous_rates[0])
    return make()


def backbone_normalization(options: Architecture) -> Normalization:
    """Returns the batch-norm constants of the backbone, which must have some."""
    constants = normalization(options, find_backbone(options.backbone).normalization)
    epsilon = options.batch_norm_epsilon
    return constants if epsilon is None else dataclasses.replace(constants, epsilon=epsilon)


def normalization(options: Architecture, published: Normalization) -> Normalization:
    """Returns a part's batch-norm constants with the architecture's changes."""
    decay = options.batch_norm_decay
    return dataclasses.replace(
        published,
        decay=published.decay if decay is None else decay,
        frozen=options.frozen_batch_norm,
        group=options.batch_norm_group,
    )
