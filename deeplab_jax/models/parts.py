"""Builds the backbone, head, decoder and classifier of an architecture.

The functions are called inside the compact method of `DeepLab`, so the modules that they return are
submodules of `DeepLab`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from deeplab_jax import heads
from deeplab_jax.architecture import Architecture
from deeplab_jax.backbones import find_backbone
from deeplab_jax.layers import Classifier, ConvNorm, Form, Normalization, SeparableConvNorm

# Feature maps of the backbone by name of the endpoint.
Maps = Mapping[str, jax.Array]
# (maps, train) → features or scores.
Head = Callable[[Maps, bool], jax.Array]
# (features, maps, train) → features.
Decoder = Callable[[jax.Array, Maps, bool], jax.Array]

# Hyperparameters of batch normalization in heads and decoders, as in the released code.
HEAD_NORMALIZATION = Normalization(decay=0.9997, epsilon=1e-5)
FOV_KERNELS = {"large": 3, "4x4": 4, "7x7": 7}


def make_backbone(options: Architecture, form: Form) -> nn.Module:
    """Returns the backbone, a module that is called with (normalized image, train)."""
    entry = find_backbone(options.backbone)
    given = {name: getattr(options, name) for name in entry.options}
    if entry.normalization is not None:
        given["normalization"] = backbone_normalization(options)
    return entry.module(
        output_stride=options.output_stride,
        form=form,
        name="backbone",
        **{name: value for name, value in given.items() if value is not None},
    )


def _norm(options: Architecture) -> dict[str, Any]:
    return {"normalization": normalization(options, HEAD_NORMALIZATION)}


def _large_fov(options: Architecture, **common: Any) -> nn.Module:
    kernel_size, rate = FOV_KERNELS[options.fov], options.atrous_rates[0]
    return heads.LargeFOV(
        options.fc_channels, kernel_size, rate, dropout_rate=options.dropout_rate, **common
    )


def _aspp(options: Architecture, **common: Any) -> nn.Module:
    if options.fusion == "sum":
        return heads.SummedASPP(
            options.num_classes,
            options.atrous_rates,
            options.fc_channels,
            dropout_rate=options.dropout_rate,
            **common,
        )
    return _concatenated(options, options.atrous_rates, **common)


def _concatenated(options: Architecture, rates: tuple[int, ...], **common: Any) -> nn.Module:
    return heads.ASPP(
        rates=rates,
        channels=options.aspp_channels,
        image_pooling=options.image_pooling != "none",
        pooling_window=options.pooling_window,
        separable=options.separable,
        separable_norm=options.separable_norm,
        projection_size=options.projection_size,
        dropout_rate=options.dropout_rate,
        align_corners=options.align_corners,
        **_norm(options),
        **common,
    )


def _spatial_pyramid(options: Architecture, **common: Any) -> nn.Module:
    return heads.SpatialPyramidPooling(
        options.aspp_channels,
        dropout_rate=options.dropout_rate,
        align_corners=options.align_corners,
        **_norm(options),
        **common,
    )


def _dense_prediction_cell(options: Architecture, **common: Any) -> nn.Module:
    return heads.DensePredictionCell(
        options.aspp_channels,
        options.output_stride,
        dropout_rate=options.dropout_rate,
        **_norm(options),
        **common,
    )


def _lite_reduced_aspp(options: Architecture, **common: Any) -> nn.Module:
    return heads.LiteReducedASPP(
        options.num_classes,
        options.aspp_channels,
        options.output_stride,
        window=options.pooling_window,
        align_corners=options.align_corners,
        **_norm(options),
        **common,
    )


# Constructors of the heads by name; None: the classifier follows the backbone directly. To add a
# head, add its module to heads/, its constructor here, and its name to `Architecture.head`.
HEADS: dict[str, Callable[..., nn.Module] | None] = {
    "plain": None,
    "cascade": None,
    "large_fov": _large_fov,
    "aspp": _aspp,
    "pooling": lambda options, **common: _concatenated(options, (), **common),
    "spp": _spatial_pyramid,
    "dpc": _dense_prediction_cell,
    "lr_aspp": _lite_reduced_aspp,
}


def make_head(options: Architecture, form: Form) -> Head:
    """Returns the head, a function that maps (endpoints of the backbone, train) to features.

    The head returns scores instead of features if it is LR-ASPP, or ASPP with `fusion='sum'`.
    """
    make = HEADS[options.head]
    if make is None or atrous_classifier(options):
        return lambda maps, train: maps["output"]
    module = make(options, form=form, name=options.head)
    if options.head == "lr_aspp":
        finer = find_backbone(options.backbone).low_level[1].name
        return lambda maps, train: module(maps["output"], maps[finer], train)
    return lambda maps, train: module(maps["output"], train)


def atrous_classifier(options: Architecture) -> bool:
    """Returns whether the classifier is the atrous convolution of LargeFOV.

    This is the case for LargeFOV without hidden layers (DeepLab v2 on a ResNet).
    """
    return options.head == "large_fov" and not options.fc_channels


def _finer_maps(options: Architecture, *sources: int) -> tuple[str, ...]:
    entry = find_backbone(options.backbone)
    low_level = entry.blocks if options.low_level_source == "block" else entry.low_level
    return tuple(low_level[source].name for source in sources)


def _low_level_decoder(
    make: Callable[..., nn.Module], *sources: int
) -> Callable[[Architecture, Form], Decoder]:
    """Returns an entry of `DECODERS`: a function that maps (options, form) to a decoder.

    Args:
      make: function that returns the module of the decoder. It is called with a `functools.partial`
        of `heads.Decoder`, in which only the argument `name` is not set.
      *sources: indices of the feature maps that the decoder uses, coarsest first. They refer to
        `BackboneEntry.low_level`, or to `BackboneEntry.blocks` if `options.low_level_source` is
        `block`.
    """

    def made(options: Architecture, form: Form) -> Decoder:
        decoder = partial(
            heads.Decoder,
            low_level_channels=options.low_level_channels,
            convolutions=options.decoder_convs,
            separable=options.separable,
            separable_norm=options.separable_norm,
            dropout=options.decoder_dropout,
            align_corners=options.align_corners,
            form=form,
            **_norm(options),
        )
        module = make(decoder)
        names = _finer_maps(options, *sources)
        return lambda features, maps, train: module(
            features, *(maps[name] for name in names), train
        )

    return made


def _multi_scale_features(options: Architecture, form: Form) -> Decoder:
    sources = find_backbone(options.backbone).intermediate
    reached = [1, *(min(source.stride, options.output_stride) for source in sources)]
    strides = tuple(options.output_stride // stride for stride in reached)
    module = heads.MultiScaleFeatures(strides, options.align_corners, form, name="decoder")
    names = ["image", *(source.name for source in sources)]
    return lambda features, maps, train: module(features, [maps[name] for name in names], train)


DECODERS: dict[str, Callable[[Architecture, Form], Decoder]] = {
    "none": lambda options, form: lambda features, maps, train: features,
    "v3plus": _low_level_decoder(lambda decoder: decoder(name="decoder"), 0),
    "conv2_conv3": _low_level_decoder(partial(heads.TwoStageDecoder, name="decoder"), 1, 0),
    "msc": _multi_scale_features,
}


def make_decoder(options: Architecture, form: Form) -> Decoder:
    """Returns the decoder, a function that maps (features, endpoints, train) to features.

    If `options.decoder` is "none", the returned function returns the features unchanged.
    """
    return DECODERS[options.decoder](options, form)


def make_refinement(options: Architecture, form: Form, name: str) -> nn.Module:
    """Returns an additional 3×3 convolution as a module called `name`.

    The module `refine_encoder` is between head and decoder. It is separable if `options.separable`
    is True. The module `refine` is between decoder and classifier, and is never separable.

    Args:
      options: architecture of the network.
      form: settings common to all layers.
      name: `refine_encoder` or `refine`.
    """
    norm = normalization(options, HEAD_NORMALIZATION)
    if name == "refine_encoder" and options.separable:
        return SeparableConvNorm(
            options.aspp_channels, norm, inner_norm=options.separable_norm, form=form, name=name
        )
    return ConvNorm(options.aspp_channels, norm, form=form, name=name)


def make_classifier(options: Architecture, form: Form) -> nn.Module:
    """Returns the classifier, the layer that computes scores from features.

    It is an atrous convolution if `atrous_classifier(options)` is True, else a 1×1 convolution.
    """
    make = partial(Classifier, options.num_classes, form=form, name="classifier")
    if atrous_classifier(options):
        return make(FOV_KERNELS[options.fov], rate=options.atrous_rates[0])
    return make()


def backbone_normalization(options: Architecture) -> Normalization:
    """Returns the hyperparameters of batch normalization in the backbone.

    Raises:
      ValueError: the backbone has no batch normalization.
    """
    published = find_backbone(options.backbone).normalization
    if published is None:
        raise ValueError(f"the backbone {options.backbone} has no batch normalization")
    constants = normalization(options, published)
    epsilon = options.batch_norm_epsilon
    return constants if epsilon is None else dataclasses.replace(constants, epsilon=epsilon)


def normalization(options: Architecture, published: Normalization) -> Normalization:
    """Returns the hyperparameters of batch normalization in one part of a network.

    Args:
      options: architecture of the network. It determines `frozen` and `group` of the result, and
        also `decay` if `options.batch_norm_decay` is set.
      published: published hyperparameters of the part. They determine the rest of the result.
    """
    decay = options.batch_norm_decay
    return dataclasses.replace(
        published,
        decay=published.decay if decay is None else decay,
        frozen=options.frozen_batch_norm,
        group=options.ghost_batch_size,
    )
