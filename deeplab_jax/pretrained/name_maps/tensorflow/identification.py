"""Which of the released TensorFlow networks the names and shapes of arrays are of."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.backbones.resnet import DEPTHS
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.architecture import scaled_rates
from deeplab_jax.pretrained.name_maps.convention import IMAGE_CLASSIFIER, Identified
from deeplab_jax.pretrained.name_maps.tensorflow.graph_facts import graph_overrides
from deeplab_jax.pretrained.name_maps.tensorflow.tables import (
    SEMANTIC,
    classifier_scope,
)
from deeplab_jax.pretrained.name_maps.tensorflow.widths import (
    identify_mobilenet_v2,
    identify_mobilenet_v3,
)
from deeplab_jax.pretrained.published import PublishedWeights

Arrays = Mapping[str, np.ndarray]

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
    given = {} if rates == scaled_rates(16) else {"atrous_rates": rates}
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
