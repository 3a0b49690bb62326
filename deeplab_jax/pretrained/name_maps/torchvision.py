"""Variable names in torchvision: segmentation networks and ImageNet classifiers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_jax.backbones import mobilenet
from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import (
    IMAGE_CLASSIFIER,
    LEAVES,
    PYTORCH,
    VGG_CONVOLUTIONS,
    Convention,
    Identified,
    Rule,
    names_of_single_output,
    outputs,
    preprocessing_of,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

PRESETS = {
    "resnet_50": "torchvision/deeplabv3_resnet50",
    "resnet_101": "torchvision/deeplabv3_resnet101",
    "mobilenet_v3_large": "torchvision/deeplabv3_mobilenet_v3_large",
}
# Array of the last layer of a classifier → backbone, and keywords that differ from the defaults.
MOBILENETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "features.18.0.weight": ("mobilenet_v2", {"batch_norm_epsilon": 1e-5}),
    "features.16.0.weight": ("mobilenet_v3_large", {}),
    "features.12.0.weight": ("mobilenet_v3_small", {}),
}

HEAD = (
    Rule("refine", "classifier.1", "classifier.2"),
    Rule("classifier", "classifier.4", background=True),
    Rule("auxiliary/conv", "aux_classifier.0", "aux_classifier.1"),
    Rule("auxiliary/classifier", "aux_classifier.4", background=True),
)
# DeepLab v1 starts from VGG-16 with its fully connected layers as convolutions.
VGG = (
    *(Rule(f"backbone/{ours}", theirs) for ours, theirs in VGG_CONVOLUTIONS.items()),
    Rule("large_fov/fc6", "classifier.0"),
    Rule("large_fov/fc7", "classifier.3"),
    Rule("classifier", "classifier.6"),
)


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a network of torchvision, or a ResNet of timm with torchvision's array names.

    Returns:
      The network, or None if the arrays have other names.

    Raises:
      DeepLabError: the `config.json` of timm states an unsupported normalization of the images.
    """
    arrays = weights.arrays
    if "classifier.0.convs.0.0.weight" in arrays:
        return _segmentation(arrays)
    count = outputs(arrays, "classifier.6")
    if "features.28.weight" in arrays and count:
        overrides = {"fov": "7x7", "num_classes": count, "preprocessing": "mean_std"}
        return Identified("deeplab_v1", overrides)
    last = next((name for name in MOBILENETS if name in arrays), "")
    backbone, own = MOBILENETS.get(last, (resnet_name(arrays, ""), {}))
    count = outputs(arrays, _scores(backbone or ""))
    if backbone is None or count is None:
        return None
    keywords = {"backbone": backbone, "num_classes": count, **own, **PYTORCH}
    return Identified(IMAGE_CLASSIFIER, keywords | preprocessing_of(weights.configuration))


def _segmentation(arrays: Mapping[str, np.ndarray]) -> Identified | None:
    mobile = "backbone.16.0.weight" in arrays
    backbone = "mobilenet_v3_large" if mobile else resnet_name(arrays, "backbone.")
    count = outputs(arrays, "classifier.4")
    if backbone not in PRESETS or count is None:
        return None
    # If only the classifier was replaced for fine-tuning, the auxiliary head has other classes.
    is_auxiliary = outputs(arrays, "aux_classifier.4") == count
    overrides = {"num_classes": max(count, 2), "aux_head": is_auxiliary}
    return Identified(PRESETS[backbone], overrides, names_of_single_output(count))


def _scores(backbone: str) -> str:
    """Returns the scope of the last layer of an image classifier with the given backbone."""
    if backbone.startswith("mobilenet"):
        return "classifier.1" if backbone == "mobilenet_v2" else "classifier.3"
    return "fc"


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of torchvision."""
    if identified.architecture == "deeplab_v1":
        return VGG
    if identified.architecture in PRESETS.values():
        mobile = identified.architecture == PRESETS["mobilenet_v3_large"]
        backbone = mobilenet_v3_rules("large", "backbone.") if mobile else resnet_rules("backbone.")
        rates = resolve(identified.architecture, **identified.overrides).atrous_rates
        return (*backbone, *aspp_rules("classifier.0", rates), *HEAD)
    backbone = identified.overrides["backbone"]
    scores = Rule("classifier", _scores(backbone))
    if backbone == "mobilenet_v2":
        last = Rule("layer_19", "features.18.0", "features.18.1")
        return (*mobilenet_v2_rules(), last, scores)
    if backbone.startswith("resnet"):
        return (*resnet_rules(""), scores)
    units = mobilenet_v3_rules(backbone.rpartition("_")[2], "features.")
    return (*units, Rule("hidden", "classifier.0"), scores)


def aspp_rules(
    scope: str, rates: Sequence[int], channels: int = 256, inner: str | None = None
) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of ASPP to torchvision's variable names.

    Args:
      scope: scope of ASPP in torchvision, or in another codebase with torchvision's names.
      rates: atrous rates of the branches.
      channels: number of output channels of each branch.
      inner: for separable branches, text that precedes the index 0 (depthwise) or 1 (pointwise),
        such as `body.` in `convs.1.0.body.0.weight`; may be empty. None: no branch is separable.
    """
    pooling = f"{scope}.convs.{len(rates) + 1}"
    rules = [
        Rule("aspp/pointwise", f"{scope}.convs.0.0", f"{scope}.convs.0.1"),
        Rule("aspp/image_pooling/conv", f"{pooling}.1", f"{pooling}.2"),
        # torchvision concatenates image pooling last, this codebase first.
        Rule("aspp/projection", f"{scope}.project.0", f"{scope}.project.1", moved=channels),
    ]
    for number, rate in enumerate(rates, start=1):
        rules += conv_rules(f"aspp/rate_{rate}", f"{scope}.convs.{number}", 0, inner)
    return tuple(rules)


def conv_rules(
    ours: str, scope: str, number: int, inner: str | None, moved: int = 0
) -> tuple[Rule, ...]:
    """Returns the rules for a convolution and its normalization in a Sequential of PyTorch.

    Args:
      ours: path of the module in this codebase.
      scope: scope of the Sequential.
      number: index of the convolution in the Sequential; the normalization has the next index.
      inner: for a separable convolution, text that precedes the index 0 (depthwise) or 1
        (pointwise), see `aspp_rules`. None: the convolution is not separable.
      moved: number of input channels of the kernel to move from the end to the front, see `Rule`.
    """
    convolution, norm = f"{scope}.{number}", f"{scope}.{number + 1}"
    if inner is None:
        return (Rule(ours, convolution, norm, moved),)
    return (
        Rule(f"{ours}/depthwise", f"{convolution}.{inner}0", moved=moved),
        Rule(f"{ours}/pointwise", f"{convolution}.{inner}1", norm, moved),
    )


def mobilenet_v2_rules(feature: Callable[[int], str] = "features.{}".format) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of MobileNetV2 to torchvision's variable names.

    There is no rule for the last convolution, which some networks do not have. Its module path is
    `layer_19` in image classifiers and `backbone/layer_19` in segmentation networks.

    Args:
      feature: function that takes the number of a layer in torchvision's `features` and returns the
        scope of this layer.
    """
    rules = [
        Rule("backbone/layer_1", f"{feature(0)}.0", f"{feature(0)}.1"),
        Rule("backbone/layer_2/depthwise", f"{feature(1)}.conv.0.0", f"{feature(1)}.conv.0.1"),
        Rule("backbone/layer_2/project", f"{feature(1)}.conv.1", f"{feature(1)}.conv.2"),
    ]
    for number in range(2, len(mobilenet.V2_LAYERS) + 1):
        ours, unit = f"backbone/layer_{number + 1}", f"{feature(number)}.conv"
        rules += [
            Rule(f"{ours}/expand", f"{unit}.0.0", f"{unit}.0.1"),
            Rule(f"{ours}/depthwise", f"{unit}.1.0", f"{unit}.1.1"),
            Rule(f"{ours}/project", f"{unit}.2", f"{unit}.3"),
        ]
    return tuple(rules)


def mobilenet_v3_rules(form: str, prefix: str) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of MobileNetV3 to torchvision's variable names.

    torchvision numbers the layers inside a block; this codebase names them.

    Args:
      form: size of the network: `large` or `small`.
      prefix: text before the numbers of the layers, such as `features.`.
    """
    rows = mobilenet.layers(form)
    rules = [Rule("backbone/layer_1", f"{prefix}0.0", f"{prefix}0.1")]
    for number, row in enumerate(rows, start=1):
        unit, ours = f"{prefix}{number}.block", f"backbone/layer_{number + 1}"
        # The first block does not expand.
        parts = ["depthwise", *["squeeze"] * row.squeeze, "project"]
        for place, part in enumerate(parts if number == 1 else ["expand", *parts]):
            if part == "squeeze":
                inner = f"{ours}/squeeze_excitation"
                rules.append(Rule(f"{inner}/squeeze", f"{unit}.{place}.fc1"))
                rules.append(Rule(f"{inner}/excite", f"{unit}.{place}.fc2"))
            else:
                rules.append(Rule(f"{ours}/{part}", f"{unit}.{place}.0", f"{unit}.{place}.1"))
    end = len(rows) + 1
    return (*rules, Rule(f"backbone/layer_{end + 1}", f"{prefix}{end}.0", f"{prefix}{end}.1"))


IGNORED = {r"^aux_classifier\.": "this auxiliary head has other classes and only serves training"}
TORCHVISION = Convention(
    name="torchvision", identify=identify, rules=rules, leaves=LEAVES, ignored=IGNORED
)
