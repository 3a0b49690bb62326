"""Identifies networks released in tensorflow/models by array names, shapes and graph.

The scopes of the variables are defined in the repository tensorflow/models, in
research/deeplab/model.py, research/deeplab/core/*.py and research/slim/nets/*.py.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_jax.backbones import find_backbone, mobilenet
from deeplab_jax.backbones.resnet import OWN_DEPTHS
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.output_stride import default_aspp_rates
from deeplab_jax.pretrained.name_maps.rules import (
    IMAGE_CLASSIFIER,
    Convention,
    Identified,
    leaves,
)
from deeplab_jax.pretrained.name_maps.tensorflow_tables import SEMANTIC, classifier_scope, rules
from deeplab_jax.pretrained.weights import GraphFacts, PublishedWeights

# Scopes of convolutions that are applied to the encoder output; every network has one of them.
ENCODED = ("aspp0", "meta_architecture/branch0_pointwise", "logits/semantic")


def graph_overrides(weights: PublishedWeights, backbone: str) -> Mapping[str, Any]:
    """Returns the keywords of `create_model` that can be read from the computation graph.

    These are output stride, atrous rates, multi-grid, image pooling and alignment of resizes. For a
    file without a graph, the result is empty.

    Args:
      weights: arrays and graph of the file.
      backbone: name of the backbone.
    """
    facts = weights.graph
    if facts is None:
        return {}
    overrides: dict[str, Any] = {}
    if facts.align_corners is False:
        overrides["align_corners"] = False
    strides = map(facts.stride_of, ENCODED)
    stride = next((stride for stride in strides if stride is not None), None)
    if stride is None:
        return overrides
    overrides["output_stride"] = stride
    if facts.pooling_window:
        crop = tuple((length - 1) * stride + 1 for length in facts.pooling_window)
        overrides |= {"image_pooling": "crop", "pooling_crop": crop}
    branches = (f"aspp{number}" for number in itertools.count(1))
    found = (facts.rates.get(f"{name}_depthwise", facts.rates.get(name)) for name in branches)
    rates = tuple(rate[0] for rate in itertools.takewhile(bool, found) if rate)
    # Default rates are not set, so that they change with the output stride.
    if rates not in ((), default_aspp_rates(stride)):
        overrides["atrous_rates"] = rates
    return {**overrides, **_multi_grid(facts, stride, backbone)}


def _multi_grid(facts: GraphFacts, stride: int, backbone: str) -> Mapping[str, Any]:
    count = find_backbone(backbone).multi_grid_size
    depth = backbone.split("_")[1]
    unit = "lite_bottleneck_v1" if depth == "18" else "bottleneck_v1"
    units = [f"resnet_v1_{depth}/block4/unit_{n + 1}/{unit}/conv2" for n in range(count)]
    if not count or not facts.rates.keys() >= set(units):
        return {}
    # Each stride of 2 that is replaced by atrous convolution doubles the rates of block4.
    return {"multi_grid": tuple(facts.rates[unit][0] * stride // 32 for unit in units)}


Arrays = Mapping[str, np.ndarray]
# Depth multipliers of the published networks. They are tried in turn, because rounded widths do not
# determine the multiplier.
MULTIPLIERS = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4)
# Widths of stem, blocks and last layer at depth multiplier 1, by scope and backbone.
WIDTHS = {
    "MobilenetV2": {"mobilenet_v2": [32, *(row.features for row in mobilenet.V2_LAYERS)]},
    "MobilenetV3": {
        f"mobilenet_v3_{form}": [
            mobilenet.STEM_WIDTH,
            *(row.features for row in mobilenet.layers(form)),
            ends[3],
        ]
        for form, ends in mobilenet.V3_ENDS.items()
    },
}
# Possible divisors of scaled widths, and the keywords that set them.
DIVISORS: Mapping[str, Mapping[int, Mapping[str, Any]]] = {
    "MobilenetV2": {1: {}, 8: {"width_divisor": 8}},
    "MobilenetV3": {8: {}},
}


def identify_mobilenet(arrays: Arrays, scope: str) -> Mapping[str, Any]:
    """Returns the keywords of `create_model` for a MobileNet.

    If no MobileNet has exactly the numbers of channels in the file, the keywords of a similar one
    are returned. The conversion then reports the arrays that do not fit.

    Args:
      arrays: arrays of the file by name.
      scope: `MobilenetV2` or `MobilenetV3`.
    """
    units = (f"expanded_conv_{n}" for n in range(1, 32))
    names = ["Conv", *(f"{unit}/project" for unit in ("expanded_conv", *units))]
    names += ["Conv_1"] if scope == "MobilenetV3" else []
    widths = [width for name in names if (width := _channels(arrays, f"{scope}/{name}"))]
    networks = WIDTHS[scope]
    fitting = {name: full for name, full in networks.items() if len(full) == len(widths)}
    for backbone, full in fitting.items():
        # Without rounding, the last width determines the multiplier.
        factors = (*MULTIPLIERS, widths[-1] / full[-1])
        for (divisor, keywords), factor in itertools.product(DIVISORS[scope].items(), factors):
            ours = [mobilenet.scaled_width(width, factor, divisor) for width in full]
            released = [mobilenet.rounded_width(width * factor, divisor) for width in full]
            if widths in (ours, released):
                found = {"backbone": backbone, "depth_multiplier": factor, **keywords}
                return found | _explicit_widths(ours, widths)
    nearest = next(iter(fitting or networks))
    return {"backbone": nearest, "depth_multiplier": widths[0] / networks[nearest][0]}


def _explicit_widths(ours: Sequence[int], released: Sequence[int]) -> dict[str, Any]:
    """Returns the keyword `widths` for layers whose width in the file is not the default.

    If `width_divisor` is 1 (MobileNetV2), the released code rounds scaled widths to the nearest
    integer, but `scaled_width` rounds them down. The result is empty if no width differs.

    Args:
      ours: numbers of channels of the stem and of every layer, according to `scaled_width`.
      released: numbers of channels in the file.
    """
    paths = ["layer_1", *(f"layer_{number}/project" for number in range(2, len(ours) + 1))]
    layers = [
        (f"backbone/{path}", width)
        for path, width, default in zip(paths, released, ours, strict=True)
        if width != default
    ]
    return {"widths": tuple(sorted(layers))} if layers else {}


# Multi-grid that common.py of the released code recommends for training from the ImageNet weights
# of these backbones. It is assumed, because the names do not contain it and no such DeepLab was
# released. By default, train.py sets no multi-grid.
MULTI_GRIDS = {"resnet_50_beta": (1, 2, 4), "resnet_101_beta": (1, 2, 4)}
# Released networks with the LR-ASPP head, which were trained at 769×769 pixels.
LITE_CROP, LITE_OUTPUT_STRIDE = (769, 769), 32
# Classifiers of TensorFlow-Slim subtract the mean color of VGG; the DeepLab networks do not.
VGG_MEAN = {"preprocessing": "vgg_mean"}


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a network released in tensorflow/models, by scopes, shapes and computation graph.

    Returns:
      The network, or None if no array has a name that identifies a backbone of tensorflow/models.

    Raises:
      DeepLabError: the file contains a backbone, but no layer that computes class scores.
    """
    arrays = weights.arrays
    found = identify_backbone(arrays)
    if found is None:
        return None
    backbone = found["backbone"]
    scores = _channels(arrays, classifier_scope(backbone))
    head = identify_head(arrays)
    if head is None and scores is not None:
        return _classifier(found, scores)
    if head is None:
        raise DeepLabError(
            f"the file contains the backbone {backbone}, but no classifier with the name "
            f"{SEMANTIC} or {classifier_scope(backbone)}"
        )
    overrides = {**found, **head}
    if backbone in MULTI_GRIDS:
        overrides["multi_grid"] = MULTI_GRIDS[backbone]
    overrides |= graph_overrides(weights, backbone)
    decoder = head.get("decoder", "none")
    return Identified("deeplab_v3" if decoder == "none" else "deeplab_v3plus", overrides)


def identify_backbone(arrays: Arrays) -> Mapping[str, Any] | None:
    """Returns the keywords of `create_model` for the backbone; None if it is unknown."""
    for scope in WIDTHS:
        if f"{scope}/Conv/weights" in arrays:
            return identify_mobilenet(arrays, scope)
    first = {f"xception_{depth}/entry_flow/conv1_1": f"xception_{depth}" for depth in (41, 65, 71)}
    for depth in OWN_DEPTHS:
        first[f"resnet_v1_{depth}/conv1"] = f"resnet_{depth}"
        first[f"resnet_v1_{depth}/conv1_1"] = f"resnet_{depth}_beta"
    first["vgg_16/conv1/conv1_1"] = "vgg_16"
    names = (name for scope, name in first.items() if f"{scope}/weights" in arrays)
    return next(({"backbone": name} for name in names), None)


def identify_head(arrays: Arrays) -> Mapping[str, Any] | None:
    """Returns `create_model` keywords of head, decoder and classifier; None if there is no head."""
    classes = _channels(arrays, SEMANTIC)
    if classes is not None:
        return {"num_classes": classes, **_encoder(arrays), **_decoder(arrays)}
    classes = _channels(arrays, "decoder/feature_projection0")
    if classes is None:
        return None
    # The decoder of LR-ASPP computes the logits; there is no separate classifier.
    return {
        "num_classes": classes,
        "head": "lr_aspp",
        "aspp_channels": _channels(arrays, "aspp0"),
        "output_stride": LITE_OUTPUT_STRIDE,
        "image_pooling": "crop",
        "pooling_crop": LITE_CROP,
    }


def _classifier(found: Mapping[str, Any], scores: int) -> Identified:
    """Returns the network that stores the weights of a released ImageNet classifier.

    It is an image classifier, except for VGG-16. The weights of VGG-16 are stored in a DeepLab v1
    with `fov="7x7"`, because the kernel of layer fc6 of VGG-16 has this size.

    Args:
      found: keywords of the backbone.
      scores: number of outputs of the classifier.
    """
    overrides = {**found, "num_classes": scores}
    if found["backbone"] == "vgg_16":
        return Identified("deeplab_v1", overrides | {"fov": "7x7"} | VGG_MEAN)
    plain = found["backbone"] in [f"resnet_{depth}" for depth in OWN_DEPTHS]
    return Identified(IMAGE_CLASSIFIER, overrides | (VGG_MEAN if plain else {}))


def _encoder(arrays: Arrays) -> Mapping[str, Any]:
    cell = _channels(arrays, "meta_architecture/concat_projection")
    if cell is not None:
        return {"head": "dpc", "aspp_channels": cell}
    channels = _channels(arrays, "aspp0")
    if channels is None:
        return {"head": "plain"}
    pooling = "global" if "image_pooling/weights" in arrays else "none"
    overrides = {"aspp_channels": channels, "image_pooling": pooling}
    separable = "aspp1_pointwise/weights" in arrays
    suffix = "_pointwise/weights" if separable else "/weights"
    branches = (n for n in itertools.count(1) if f"aspp{n}{suffix}" not in arrays)
    rates = tuple(6 * number for number in range(1, next(branches)))
    if not rates:
        return {"head": "pooling", **overrides}
    given = {} if rates == default_aspp_rates(16) else {"atrous_rates": rates}
    return {"head": "aspp", "separable": separable, **overrides, **given}


def _decoder(arrays: Arrays) -> Mapping[str, Any]:
    low_level = _channels(arrays, "decoder/feature_projection0")
    if low_level is None:
        return {}
    separable = "decoder/decoder_conv0_pointwise/weights" in arrays
    convolutions = []
    for number in range(2):
        scope = f"decoder/decoder_conv0/decoder_conv0_{number + 1}"
        width = _channels(arrays, f"decoder/decoder_conv{number}_pointwise" if separable else scope)
        if width is not None:
            convolutions.append((3, width))
    second = "decoder/feature_projection0_1/weights" in arrays
    return {
        "decoder": "conv2_conv3" if second else "v3plus",
        "low_level_channels": low_level,
        "decoder_convs": tuple(convolutions),
        "separable": separable,
    }


def _channels(arrays: Arrays, scope: str) -> int | None:
    """Returns the number of output channels of a convolution; None if there is no such layer."""
    kernel = arrays.get(f"{scope}/weights")
    return None if kernel is None else kernel.shape[-1]


TENSORFLOW = Convention(
    name="the released TensorFlow code",
    identify=identify,
    rules=rules,
    leaves=leaves(
        ["{convolution}/weights", "{convolution}/depthwise_weights"],
        ["{convolution}/biases"],
        "{norm}/",
        ("gamma", "beta", "moving_mean", "moving_variance"),
    ),
    norm="{convolution}/BatchNorm",
)
