"""Which released TensorFlow network a file holds, from names, shapes and graph.

The scopes are those of tensorflow/models: research/deeplab/model.py and core/*.py, research/slim/
nets/*.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_jax.architecture import default_aspp_rates
from deeplab_jax.backbones import find_backbone, mobilenet
from deeplab_jax.backbones.mobilenet import rounded_width
from deeplab_jax.backbones.resnet import DEPTHS
from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.name_maps.rules import IMAGE_CLASSIFIER, Convention, Identified
from deeplab_jax.pretrained.name_maps.tensorflow_tables import SEMANTIC, classifier_scope, rules
from deeplab_jax.pretrained.weights import GraphFacts, PublishedWeights

# Convolutions that the encoder's map goes into; one of them is in every network.
ENCODED = ("aspp0", "meta_architecture/branch0_pointwise", "logits/semantic")


def graph_overrides(weights: PublishedWeights, backbone: str) -> Mapping[str, Any]:
    """Returns output stride, atrous rates, multi-grid and the conventions of pooling and resizing.

    Args:
      weights: of a graph, or of variables alone, which do not describe it.
      backbone: its name here.
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
    return overrides | _atrous_rates(facts, stride) | _multi_grid(facts, stride, backbone)


def _atrous_rates(facts: GraphFacts, stride: int) -> Mapping[str, Any]:
    rates = []
    while scope := next((name for name in _branch(len(rates) + 1) if name in facts.rates), None):
        rates.append(facts.rates[scope][0])
    # The usual ones follow an output stride that is asked for later.
    return (
        {} if tuple(rates) in ((), default_aspp_rates(stride)) else {"atrous_rates": tuple(rates)}
    )


def _branch(number: int) -> tuple[str, str]:
    return f"aspp{number}_depthwise", f"aspp{number}"


def _multi_grid(facts: GraphFacts, stride: int, backbone: str) -> Mapping[str, Any]:
    count = find_backbone(backbone).multi_grid_size
    depth = backbone.split("_")[1]
    unit = "lite_bottleneck_v1" if depth == "18" else "bottleneck_v1"
    scopes = [
        f"resnet_v1_{depth}/block4/unit_{number}/{unit}/conv2" for number in range(1, count + 1)
    ]
    if not count or any(scope not in facts.rates for scope in scopes):
        return {}
    # Three of the five halvings lie before block4's own, and each that was lost doubles its rate.
    grid = tuple(facts.rates[scope][0] * stride // 32 for scope in scopes)
    return {"multi_grid": grid}


Arrays = Mapping[str, np.ndarray]
# Of the published networks; a width rounded to a multiple of 8 does not tell.
MULTIPLIERS = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4)


def identify_mobilenet_v2(arrays: Arrays) -> Mapping[str, Any]:
    """Returns the keywords of a MobileNetV2; it may still differ where none fits all widths."""
    widths = _widths(arrays, "MobilenetV2")
    nominal = [32, *(layer.features for layer in mobilenet.V2_LAYERS)]
    for divisor in (1, 8):
        for factor in _multipliers(widths, nominal):
            scaled = [mobilenet.scaled_width(width, factor, divisor) for width in nominal]
            if widths == scaled:
                found = {"backbone": "mobilenet_v2", "depth_multiplier": factor}
                return found if divisor == 1 else found | {"width_divisor": divisor}
    return {"backbone": "mobilenet_v2", "depth_multiplier": widths[0] / nominal[0]}


def identify_mobilenet_v3(arrays: Arrays) -> Mapping[str, Any]:
    """Returns the keywords of a MobileNetV3, as above."""
    widths = _widths(arrays, "MobilenetV3", last="MobilenetV3/Conv_1/weights")
    forms = {form: _nominal(form) for form in mobilenet.V3_ENDS}
    fitting = {form: nominal for form, nominal in forms.items() if len(nominal) == len(widths)}
    for form, nominal in fitting.items():
        for factor in _multipliers(widths, nominal):
            if widths == [rounded_width(width * factor) for width in nominal]:
                return {"backbone": f"mobilenet_v3_{form}", "depth_multiplier": factor}
    nearest = next(iter(fitting), "large")
    return {"backbone": f"mobilenet_v3_{nearest}", "depth_multiplier": widths[0] / 16}


def _nominal(form: str) -> list[int]:
    rows = mobilenet.layers(form)
    last = mobilenet.V3_ENDS[form][3]
    return [mobilenet.STEM_WIDTH, *(row.features for row in rows), last]


def _widths(arrays: Arrays, scope: str, last: str = "") -> list[int]:
    """Returns the output channels of stem, units and last layer, as far as they are there."""
    names = [f"{scope}/Conv/weights", f"{scope}/expanded_conv/project/weights"]
    names += [f"{scope}/expanded_conv_{n}/project/weights" for n in range(1, 32)]
    return [arrays[name].shape[-1] for name in (*names, last) if name in arrays]


def _multipliers(widths: Sequence[int], nominal: Sequence[int]) -> Iterator[float]:
    """Yields multipliers to try: where nothing is rounded, the last width determines it."""
    yield from MULTIPLIERS
    yield widths[-1] / nominal[-1]


# No name tells it, but the released code wants it switched on for these (its train.py).
MULTI_GRIDS = {"resnet_50_beta": (1, 2, 4), "resnet_101_beta": (1, 2, 4)}
# Of the released networks with the light head: half of Cityscapes' height of 1,025 pixels.
LITE_CROP, LITE_OUTPUT_STRIDE = (769, 769), 32
# VGG's own mean colour, where the released DeepLabs have another.
VGG_MEAN = {"preprocessing": "vgg_mean"}


def identify(weights: PublishedWeights) -> Identified | None:
    """Tells a released network by its scopes and shapes; None if it is none.

    Raises:
      DeepLabError: there is a backbone and nothing that gives scores.
    """
    arrays = weights.arrays
    found = identify_backbone(arrays)
    if found is None:
        return None
    backbone = found["backbone"]
    scores = _channels(arrays, classifier_scope(backbone))
    head = identify_head(arrays)
    if head is None and scores is None:
        raise DeepLabError(
            f"it holds the backbone {backbone} without the layer that gives scores, "
            f"{SEMANTIC} or {classifier_scope(backbone)}"
        )
    if head is None:
        return _classifier(found, scores)
    overrides = {**found, **head}
    if backbone in MULTI_GRIDS:
        overrides["multi_grid"] = MULTI_GRIDS[backbone]
    overrides |= graph_overrides(weights, backbone)
    decoder = head.get("decoder", "none")
    return Identified("deeplab_v3" if decoder == "none" else "deeplab_v3plus", overrides)


def identify_backbone(arrays: Arrays) -> Mapping[str, Any] | None:
    """Returns the keywords of the backbone."""
    if "MobilenetV2/Conv/weights" in arrays:
        return identify_mobilenet_v2(arrays)
    if "MobilenetV3/Conv/weights" in arrays:
        return identify_mobilenet_v3(arrays)
    first = {f"xception_{depth}/entry_flow/conv1_1": f"xception_{depth}" for depth in (41, 65, 71)}
    for depth in DEPTHS:
        first[f"resnet_v1_{depth}/conv1"] = f"resnet_{depth}"
        first[f"resnet_v1_{depth}/conv1_1"] = f"resnet_{depth}_beta"
    first["vgg_16/conv1/conv1_1"] = "vgg_16"
    names = (name for scope, name in first.items() if f"{scope}/weights" in arrays)
    return next(({"backbone": name} for name in names), None)


def identify_head(arrays: Arrays) -> Mapping[str, Any] | None:
    """Returns the keywords of head, decoder and classifier; None without them."""
    classes = _channels(arrays, SEMANTIC)
    if classes is not None:
        return {"num_classes": classes, **_encoder(arrays), **_decoder(arrays)}
    classes = _channels(arrays, "decoder/feature_projection0")
    if classes is None:
        return None
    # The decoder's output is the scores: no other layer gives them.
    return {
        "num_classes": classes,
        "head": "lr_aspp",
        "aspp_channels": _channels(arrays, "aspp0"),
        "output_stride": LITE_OUTPUT_STRIDE,
        "image_pooling": "crop",
        "pooling_crop": LITE_CROP,
    }


def _classifier(found: Mapping[str, Any], scores: int) -> Identified:
    """Returns a network for ImageNet; VGG's is the DeepLab v1 with its fully connected layers."""
    overrides = {**found, "num_classes": scores}
    if found["backbone"] == "vgg_16":
        return Identified("deeplab_v1", overrides | {"fov": "7x7"} | VGG_MEAN)
    plain = found["backbone"] in [f"resnet_{depth}" for depth in DEPTHS]
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
    branches = 0
    while f"aspp{branches + 1}{'_pointwise' if separable else ''}/weights" in arrays:
        branches += 1
    if not branches:
        return {"head": "pooling", **overrides}
    rates = tuple(6 * number for number in range(1, branches + 1))
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
    """Returns the output channels of a convolution; None if it is not there."""
    kernel = arrays.get(f"{scope}/weights")
    return None if kernel is None else kernel.shape[-1]


LEAVES = {
    "kernel": ("{convolution}/weights", "{convolution}/depthwise_weights"),
    "bias": ("{convolution}/biases",),
    "scale": ("{norm}/gamma",),
    "offset": ("{norm}/beta",),
    "mean": ("{norm}/moving_mean",),
    "var": ("{norm}/moving_variance",),
}

TENSORFLOW = Convention(
    name="the released TensorFlow code",
    identify=identify,
    rules=rules,
    leaves=LEAVES,
    norm="{convolution}/BatchNorm",
)
