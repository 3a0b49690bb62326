"""Variable names in PyTorch ports of DeepLab v1 and v2, which were published as Caffe networks."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import (
    LEAVES,
    VGG_CONVOLUTIONS,
    Convention,
    Identified,
    Rule,
    leaves,
    outputs,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

NAME = "PyTorch exports of the Caffe networks"
# Names in kazuto1011/deeplab-pytorch.
UNIT = "layer{block+1}.block{unit}"
KAZUTO = (
    Rule("backbone/stem_1", "layer1.conv1"),
    Rule("backbone/block{block}/unit_{unit}/conv1", f"{UNIT}.reduce"),
    Rule("backbone/block{block}/unit_{unit}/conv2", f"{UNIT}.conv3x3"),
    Rule("backbone/block{block}/unit_{unit}/conv3", f"{UNIT}.increase"),
    Rule("backbone/block{block}/unit_{unit}/shortcut", f"{UNIT}.shortcut"),
)
KAZUTO_LEAVES = leaves(
    ["{convolution}.conv.weight", "{convolution}.weight"], ["{convolution}.bias"], "{norm}.bn."
)
KAZUTO_DEPTHS = {6: "resnet_50", 23: "resnet_101"}
# Prefixes of all names if the file contains the module that applies the network at several scales.
# In inference, this module returns the maximum of the scores at SCALES.
MULTI_SCALE = ("base.", "scale.", "Scale.")
SCALES = (1, 0.75, 0.5)
# Prefixes of the ASPP branches, which are numbered in the order of the rates.
BRANCHES = {"kazuto1011": "aspp.c", "isht7": "layer5.conv2d_list."}


def identify_resnet(code: str, weights: PublishedWeights) -> Identified | None:
    """Identifies DeepLab v2 with a ResNet backbone by the array names of the codebase `code`.

    Args:
      code: `kazuto1011` (deeplab-pytorch) or `isht7` (pytorch-deeplab-resnet).
      weights: contents of the weights file.

    Returns:
      The network, or None if the arrays have other names.
    """
    arrays, kazuto = weights.arrays, code == "kazuto1011"
    units = {name.split(".")[1] for name in arrays if name.startswith("layer4.block")}
    backbone = KAZUTO_DEPTHS.get(len(units)) if kazuto else resnet_name(arrays, "")
    branch = outputs(arrays, f"{BRANCHES[code]}0")
    # The initial weights for training have a single 1×1 classifier instead of ASPP.
    classes = outputs(arrays, "fc") if branch is None and kazuto else branch
    if backbone is None or classes is None:
        return None
    overrides: dict[str, Any] = {"backbone": backbone, "num_classes": classes}
    if kazuto:
        # Unlike Caffe and isht7, kazuto1011 resizes images and scores without aligned corners.
        overrides["align_corners"] = False
    if branch is None:
        overrides["head"] = "plain"
    if set(MULTI_SCALE) & set(weights.wrappers):
        overrides["multi_scale"] = SCALES
    return Identified("deeplab_v2", overrides)


def resnet_rules_of(code: str, identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of the codebase `code`.

    The rules are for DeepLab v2 with a ResNet backbone.

    Args:
      code: `kazuto1011` (deeplab-pytorch) or `isht7` (pytorch-deeplab-resnet).
      identified: the network.
    """
    backbone = KAZUTO if code == "kazuto1011" else resnet_rules("")
    rates = resolve(identified.architecture, **identified.overrides).atrous_rates
    branches = (Rule(f"aspp/rate_{rate}", f"{BRANCHES[code]}{n}") for n, rate in enumerate(rates))
    return (*backbone, *branches, Rule("classifier", "fc"))


@dataclasses.dataclass(frozen=True)
class VGGNames:
    """Variable names in one codebase for DeepLab v1 or v2 with a VGG-16 backbone.

    Attributes:
      convolutions: {name in VGG-16, from conv1_1 to conv5_3: scope in the codebase}.
      fc6, fc7, fc8: scopes of the layers of the head.
      preprocessing: normalization of input pixels, a value of `Architecture.preprocessing`.
    """

    convolutions: Mapping[str, str]
    fc6: str
    fc7: str
    fc8: str
    preprocessing: str = "caffe_bgr"


CAFFE_NAMES = {name: name for name in VGG_CONVOLUTIONS}
VGG_NAMES = (
    VGGNames(CAFFE_NAMES, "fc6", "fc7", "fc8"),
    VGGNames(CAFFE_NAMES, "fc6", "fc7", "fc8_voc12"),
    VGGNames(VGG_CONVOLUTIONS, "fc6", "fc7", "fc8"),
    # wangleihitcs/DeepLab-V1-PyTorch, and CoinCheung/Deeplab-Large-FOV, based on torchvision's VGG.
    VGGNames(VGG_CONVOLUTIONS, "features.32", "features.35", "features.38"),
    VGGNames(VGG_CONVOLUTIONS, "classifier.1", "classifier.3", "classifier.6", "mean_std"),
)
# Field of view by (kernel size, channels) of fc6.
FOVS = {(3, 1024): "large", (4, 4096): "4x4", (7, 4096): "7x7"}


def identify_vgg(names: VGGNames, weights: PublishedWeights) -> Identified | None:
    """Identifies DeepLab v1 or v2 with a VGG-16 backbone by the array names of one codebase.

    Args:
      names: array names of the codebase. In the ASPP of DeepLab v2, the scopes of fc6, fc7 and fc8
        have the suffixes `_1` to `_4`, one for each branch.
      weights: contents of the weights file.

    Returns:
      The network, or None if the arrays have other names or shapes.
    """
    arrays = weights.arrays
    if f"{names.convolutions['conv1_1']}.weight" not in arrays:
        return None
    summed = f"{names.fc6}_1.weight" in arrays
    ending = "_1.weight" if summed else ".weight"
    fc6, fc8 = arrays.get(names.fc6 + ending), arrays.get(names.fc8 + ending)
    fov = None if fc6 is None else FOVS.get((fc6.shape[-1], fc6.shape[0]))
    if fov is None or fc8 is None:
        return None
    overrides = {"num_classes": fc8.shape[0], "preprocessing": names.preprocessing}
    if summed:
        return Identified("deeplab_v2", overrides | {"backbone": "vgg_16"})
    return Identified("deeplab_v1", overrides | {"fov": fov})


def vgg_rules(names: VGGNames, identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of one codebase.

    The rules are for DeepLab v1 and v2 with a VGG-16 backbone.

    Args:
      names: variable names of the codebase.
      identified: the network.
    """
    head = {"fc6": names.fc6, "fc7": names.fc7}
    rates = resolve(identified.architecture, **identified.overrides).atrous_rates
    branches = (
        Rule(f"aspp/rate_{rate}/{ours}", f"{theirs}_{n}")
        for n, rate in enumerate(rates, start=1)
        for ours, theirs in (head | {"fc8": names.fc8}).items()
    )
    return (
        *(Rule(f"backbone/{ours}", theirs) for ours, theirs in names.convolutions.items()),
        *(Rule(f"large_fov/{ours}", theirs) for ours, theirs in head.items()),
        *branches,
        Rule("classifier", names.fc8),
    )


CAFFE_EXPORTS = (
    *(
        Convention(
            NAME,
            partial(identify_resnet, code),
            partial(resnet_rules_of, code),
            KAZUTO_LEAVES if code == "kazuto1011" else LEAVES,
            norm="{convolution}",
        )
        for code in BRANCHES
    ),
    *(
        Convention(NAME, partial(identify_vgg, names), partial(vgg_rules, names), LEAVES)
        for names in VGG_NAMES
    ),
)
