"""What the names of several PyTorch codes have in common."""

import re
from collections.abc import Mapping

import numpy as np

from deeplab_jax.pretrained.name_maps.rules import Rule

# `state_dict` of a convolution or linear layer, and of a BatchNorm2d.
LEAVES = {
    "kernel": ("{convolution}.weight",),
    "bias": ("{convolution}.bias",),
    "scale": ("{norm}.weight",),
    "offset": ("{norm}.bias",),
    "mean": ("{norm}.running_mean",),
    "var": ("{norm}.running_var",),
}
# VGG-16's convolutions and their places in torchvision's Sequential of convolutions, activations
# and poolings.
VGG_CONVOLUTIONS = {
    f"conv{block}_{number}": f"features.{first + 2 * (number - 1)}"
    for block, count, first in ((1, 2, 0), (2, 2, 5), (3, 3, 10), (4, 3, 17), (5, 3, 24))
    for number in range(1, count + 1)
}
RESNET_BLOCKS = tuple(f"layer{block}." for block in (1, 2, 3, 4))
RESNET_UNIT = re.compile(r"layer([1-4])\.(\d+)\.(?:conv\d|bn\d|downsample\.[012])\.\w+$")
# Depth of a ResNet by the units of its third block.
RESNET_DEPTHS = {2: "resnet_18", 6: "resnet_50", 23: "resnet_101"}


def resnet_name(arrays: Mapping[str, np.ndarray], prefix: str) -> str | None:
    """Returns which ResNet's arrays have torchvision's names after a prefix; None if none known.

    ResNet-34 has as many units as ResNet-50, but no third convolution in them. Relatives of ResNet
    have further parts in their units.
    """
    named = [name.removeprefix(prefix) for name in arrays if name.startswith(f"{prefix}layer")]
    units = [unit for unit in map(RESNET_UNIT.match, named) if unit]
    inside = [name for name in named if name.startswith(RESNET_BLOCKS)]
    backbone = RESNET_DEPTHS.get(len({unit[2] for unit in units if unit[1] == "3"}))
    bottleneck = f"{prefix}layer3.0.conv3.weight" in arrays
    known = len(units) == len(inside) and bottleneck == (backbone != "resnet_18")
    return backbone if known else None


def resnet_rules(prefix: str) -> tuple[Rule, ...]:
    """Returns torchvision's name map of a ResNet, which other codes took over."""
    unit = f"{prefix}layer{{block}}.{{unit-1}}"
    return (
        Rule("backbone/stem_1", f"{prefix}conv1", f"{prefix}bn1"),
        Rule("backbone/block{block}/unit_{unit}/conv{n}", f"{unit}.conv{{n}}", f"{unit}.bn{{n}}"),
        Rule(
            "backbone/block{block}/unit_{unit}/shortcut",
            f"{unit}.downsample.0",
            f"{unit}.downsample.1",
        ),
    )
