"""Variable names in Hugging Face transformers: DeepLab and classifiers with MobileNetV2."""

from collections.abc import Sequence
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.name_maps.rules import (
    IMAGE_CLASSIFIER,
    Convention,
    Identified,
    Rule,
    leaves,
    outputs,
)
from deeplab_jax.pretrained.weights import PublishedWeights

IGNORED = {r"^mobilenet_v2\.conv_1x1\.": "the segmentation network does not use this layer"}
STEM, LAYER = "mobilenet_v2.conv_stem", "mobilenet_v2.layer.{n-3}"
BACKBONE = (
    Rule("backbone/layer_1", f"{STEM}.first_conv"),
    Rule("backbone/layer_2/depthwise", f"{STEM}.conv_3x3"),
    Rule("backbone/layer_2/project", f"{STEM}.reduce_1x1"),
    Rule("backbone/layer_{n}/expand", f"{LAYER}.expand_1x1"),
    Rule("backbone/layer_{n}/depthwise", f"{LAYER}.conv_3x3"),
    Rule("backbone/layer_{n}/project", f"{LAYER}.reduce_1x1"),
)
SEGMENTATION = (
    Rule("{head}/image_pooling/conv", "segmentation_head.conv_pool"),
    Rule("{head}/pointwise", "segmentation_head.conv_aspp"),
    Rule("{head}/projection", "segmentation_head.conv_projection"),
    Rule("classifier", "segmentation_head.classifier"),
)
CLASSIFIER = (Rule("layer_19", "mobilenet_v2.conv_1x1"), Rule("classifier", "classifier"))
# Configuration values that are supported; they are also the defaults of transformers.
FIXED = {"hidden_act": "relu6", "first_layer_is_expansion": True, "expand_ratio": 6}


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a MobileNetV2 network of Hugging Face transformers: DeepLab or image classifier.

    The array names identify the network. The width, the padding, the epsilon of batch normalization
    and the output stride are read from the `config.json`. Without a `config.json`, the width is
    read from the arrays, and the other settings are those of the published networks.

    Returns:
      The network, or None if the arrays have other names.

    Raises:
      DeepLabError: the `config.json` has an unsupported value.
    """
    stem = outputs(weights.arrays, f"{STEM}.first_conv.convolution")
    segmentation = outputs(weights.arrays, "segmentation_head.classifier.convolution")
    classes = outputs(weights.arrays, "classifier") or segmentation
    if stem is None or classes is None:
        return None
    configuration = weights.configuration
    for field, wanted in FIXED.items():
        found = configuration.get(field, wanted)
        if found != wanted:
            raise DeepLabError(f"{field} in config.json is {found!r}; only {wanted!r} is supported")
    overrides: dict[str, Any] = {"backbone": "mobilenet_v2", "num_classes": classes}
    multiplier = configuration.get("depth_multiplier", stem / 32)
    if multiplier != 1:
        overrides["depth_multiplier"] = multiplier
        overrides["width_divisor"] = configuration.get("depth_divisible_by", 8)
    if "layer_norm_eps" in configuration:
        overrides["batch_norm_epsilon"] = configuration["layer_norm_eps"]
    if not configuration.get("tf_padding", True):
        overrides["stride_placement"] = "torchvision"
    if segmentation is None:
        return Identified(IMAGE_CLASSIFIER, overrides)
    # A config.json omits the defaults of transformers, such as the output stride 32. Without this
    # file, the output stride is that of the published network.
    stride = configuration.get("output_stride", 32 if configuration else 16)
    return Identified("deeplab_v3", overrides | {"output_stride": stride})


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to names in Hugging Face transformers."""
    classifier = identified.architecture == IMAGE_CLASSIFIER
    return (*BACKBONE, *(CLASSIFIER if classifier else SEGMENTATION))


HUGGING_FACE = Convention(
    name="Hugging Face transformers",
    identify=identify,
    rules=rules,
    leaves=leaves(
        ["{convolution}.convolution.weight", "{convolution}.weight"],
        ["{convolution}.convolution.bias", "{convolution}.bias"],
        "{norm}.normalization.",
    ),
    norm="{convolution}",
    ignored=IGNORED,
)
