"""Names that the authors' Caffe networks (DeepLab v1 and v2) got in common PyTorch codes."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import (
    LEAVES,
    VGG_CONVOLUTIONS,
    Convention,
    Identified,
    Rule,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

NAME = "PyTorch exports of the Caffe networks"
# kazuto1011/deeplab-pytorch: a unit's parts are named for what they do.
UNIT = "layer{block+1}.block{unit}"
KAZUTO = (
    Rule("backbone/stem_1", "layer1.conv1"),
    Rule("backbone/block{block}/unit_{unit}/conv1", f"{UNIT}.reduce"),
    Rule("backbone/block{block}/unit_{unit}/conv2", f"{UNIT}.conv3x3"),
    Rule("backbone/block{block}/unit_{unit}/conv3", f"{UNIT}.increase"),
    Rule("backbone/block{block}/unit_{unit}/shortcut", f"{UNIT}.shortcut"),
)
KAZUTO_LEAVES = {
    "kernel": ("{convolution}.conv.weight", "{convolution}.weight"),
    "bias": ("{convolution}.bias",),
    "scale": ("{norm}.bn.weight",),
    "offset": ("{norm}.bn.bias",),
    "mean": ("{norm}.bn.running_mean",),
    "var": ("{norm}.bn.running_var",),
}
KAZUTO_DEPTHS = {6: "resnet_50", 23: "resnet_101"}
# Before the number of a branch, in the order of the rates.
BRANCHES = {"kazuto1011": "aspp.c", "isht7": "layer5.conv2d_list."}


def identify_resnet(code: str, weights: PublishedWeights) -> Identified | None:
    """Tells DeepLab v2 on a ResNet by one code's names; None if it is none.

    Args:
      code: `kazuto1011` (deeplab-pytorch) or `isht7` (pytorch-deeplab-resnet).
      weights: what the reader found.
    """
    arrays = weights.arrays
    kazuto = code == "kazuto1011"
    backbone = _kazuto_resnet(arrays) if kazuto else resnet_name(arrays, "")
    branch = arrays.get(f"{BRANCHES[code]}0.weight")
    # The weights from which training began have one 1×1 classifier instead.
    plain = arrays.get("fc.weight") if kazuto else None
    classifier = plain if branch is None else branch
    if backbone is None or classifier is None:
        return None
    overrides: dict[str, Any] = {"backbone": backbone, "num_classes": classifier.shape[0]}
    return Identified("deeplab_v2", overrides | ({"head": "plain"} if branch is None else {}))


def _kazuto_resnet(arrays: Mapping[str, np.ndarray]) -> str | None:
    units = [name for name in arrays if name.startswith("layer4.block")]
    return KAZUTO_DEPTHS.get(len({name.split(".")[1] for name in units}))


def resnet_rules_of(code: str, identified: Identified) -> Sequence[Rule]:
    """Returns one code's name map of DeepLab v2 on a ResNet."""
    backbone = KAZUTO if code == "kazuto1011" else resnet_rules("")
    rates = resolve(identified.architecture, **identified.overrides).atrous_rates
    branches = (Rule(f"aspp/rate_{rate}", f"{BRANCHES[code]}{n}") for n, rate in enumerate(rates))
    return (*backbone, *branches, Rule("classifier", "fc"))


@dataclasses.dataclass(frozen=True)
class VGGNames:
    """How a code names VGG-16 with DeepLab's field of view.

    Attributes:
      convolutions: scopes of conv1_1 to conv5_3, by our names.
      fc6, fc7, fc8: scopes of the head.
      preprocessing: of the images that the code gives to the network.
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
    # wangleihitcs/DeepLab-V1-PyTorch; CoinCheung/Deeplab-Large-FOV, begun from torchvision's VGG.
    VGGNames(VGG_CONVOLUTIONS, "features.32", "features.35", "features.38"),
    VGGNames(VGG_CONVOLUTIONS, "classifier.1", "classifier.3", "classifier.6", "mean_std"),
)
# (kernel, channels) of fc6.
FOVS = {(3, 1024): "large", (4, 4096): "4x4", (7, 4096): "7x7"}


def identify_vgg(names: VGGNames, weights: PublishedWeights) -> Identified | None:
    """Tells DeepLab on VGG-16 by one code's names; None if it is none.

    ASPP's branches are `fc6_1` to `fc6_4` and so on.
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
    """Returns one code's name map of DeepLab on VGG-16."""
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
            name=NAME,
            identify=partial(identify_resnet, code),
            rules=partial(resnet_rules_of, code),
            leaves=KAZUTO_LEAVES if code == "kazuto1011" else LEAVES,
            norm="{convolution}",
        )
        for code in BRANCHES
    ),
    *(
        Convention(
            name=NAME,
            identify=partial(identify_vgg, names),
            rules=partial(vgg_rules, names),
            leaves=LEAVES,
        )
        for names in VGG_NAMES
    ),
)
