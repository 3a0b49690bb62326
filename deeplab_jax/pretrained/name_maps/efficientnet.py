"""Variable names of EfficientNets in timm and EfficientNet-PyTorch, and of MobileNetV4 in timm."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deeplab_jax.backbones import efficientnet_networks as networks
from deeplab_jax.backbones.efficientnet_networks import CONV, FUSED, RESIDUAL_CONV, Network, Row
from deeplab_jax.pretrained.name_maps.rules import (
    IMAGE_CLASSIFIER,
    LEAVES,
    TIMM_GATE,
    Convention,
    Identified,
    Layers,
    Rule,
    outputs,
    unit_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

Arrays = Mapping[str, np.ndarray]
# Names of the layers of each kind of unit in timm.
CONVOLUTION: Layers = {"conv": ("conv", "bn1")}
FUSED_LAYERS: Layers = {"expand": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")}
SEPARABLE: Layers = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
INVERTED: Layers = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
}
UNIVERSAL: Layers = {
    "first_depthwise": ("dw_start.conv", "dw_start.bn"),
    "expand": ("pw_exp.conv", "pw_exp.bn"),
    "depthwise": ("dw_mid.conv", "dw_mid.bn"),
    "project": ("pw_proj.conv", "pw_proj.bn"),
}
MOBILENET_V4 = "mobilenetv4"


class _Signature(NamedTuple):
    """Properties that distinguish a network from others and can be read from its arrays.

    Attributes:
      units: number of units in each stage.
      stem: number of channels of the first convolution; None: there is no such array.
      features: number of output channels of the last stage; None: there is no such array.
      squeeze: whether the network has squeeze and excitation.
    """

    units: tuple[int, ...]
    stem: int | None
    features: int | None
    squeeze: bool


def _signature(network: Network) -> _Signature:
    stages = networks.units(network)
    return _Signature(
        tuple(map(len, stages)),
        networks.stem_channels(network),
        stages[-1][-1].features,
        network.squeeze,
    )


def identify(arrays: Arrays) -> str | None:
    """Identifies a network of timm by its arrays.

    The arrays do not show how convolutions are padded. If two networks differ only in the padding,
    the name of the network with PyTorch's padding is returned.

    Args:
      arrays: arrays with timm's variable names.

    Returns:
      Name of the network in timm; None if no known network has such arrays.
    """
    units = {tuple(name.split(".")[1:3]) for name in arrays if name.startswith("blocks.")}
    stages = sorted({int(stage) for stage, _ in units if stage.isdecimal()})
    counts = tuple(sum(number == str(stage) for number, _ in units) for stage in stages)
    # Networks that return feature maps have no `conv_head`, so the last unit shows the channels.
    last = f"blocks.{len(counts) - 1}.{counts[-1] - 1}" if counts else ""
    widths = (outputs(arrays, f"{last}.{layer}") for layer in ("conv_pwl", "conv"))
    found = _Signature(
        counts,
        outputs(arrays, "conv_stem"),
        next((width for width in widths if width), None),
        any(".se.conv_reduce." in name for name in arrays),
    )
    named = (name for name, network in networks.NETWORKS.items() if _signature(network) == found)
    return next(named, None)


def if_tensorflow(name: str) -> str | None:
    """Returns timm's name of the same network with TensorFlow's padding; None if timm has none.

    The second network also has TensorFlow's epsilon in batch normalization.

    Args:
      name: name of the network in timm.
    """
    ported = f"tf_{name}"
    return ported if ported in networks.NETWORKS else None


def timm_rules(name: str) -> tuple[Rule, ...]:
    """Returns the rules that map module paths to timm's variable names.

    There is no rule for the classifier.

    Args:
      name: name of the network in timm.
    """
    network, universal = networks.NETWORKS[name], name.startswith(MOBILENET_V4)
    rules = [
        Rule("backbone/stem", "conv_stem", "bn1"),
        Rule("head", "conv_head", "norm_head" if universal else "bn2"),
    ]
    for stage, number, row in _units(network):
        ours, theirs = f"backbone/stage_{stage}/block_{number}", f"blocks.{stage - 1}.{number - 1}"
        rules += unit_rules(ours, theirs, _layers(row, universal), TIMM_GATE)
    return tuple(rules)


def _units(network: Network) -> Iterator[tuple[int, int, Row]]:
    """Yields (stage, position in the stage, properties) of each unit; both numbers start from 1."""
    for stage, rows in enumerate(networks.units(network), start=1):
        for number, row in enumerate(rows, start=1):
            yield stage, number, row


def _layers(row: Row, universal: bool) -> Layers:
    if row.kind in (CONV, RESIDUAL_CONV):
        return CONVOLUTION
    if row.kind == FUSED:
        return FUSED_LAYERS
    if universal:
        return UNIVERSAL
    return SEPARABLE if row.expansion == 1 else INVERTED


# EfficientNet-PyTorch ports networks from TensorFlow. Its names are those of the `tf_` networks.
PORTED = {
    name: network
    for name, network in networks.NETWORKS.items()
    if name.startswith(("tf_efficientnet_b", "tf_efficientnet_lite"))
}
PORTED_LAYERS: Layers = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def ported_name(arrays: Arrays) -> str | None:
    """Identifies a network of EfficientNet-PyTorch by its arrays.

    Returns:
      Name of the same network in timm; None if no known network has such arrays.
    """
    head = arrays.get("_conv_head.weight")
    if head is None:
        return None
    count = len({name.split(".")[1] for name in arrays if name.startswith("_blocks.")})
    squeeze = any("._se_reduce." in name for name in arrays)
    found = _Signature((count,), outputs(arrays, "_conv_stem"), head.shape[1], squeeze)
    for name, network in PORTED.items():
        signature = _signature(network)
        if signature._replace(units=(sum(signature.units),)) == found:
            return name
    return None


def _identify_ported(weights: PublishedWeights) -> Identified | None:
    name, classes = ported_name(weights.arrays), outputs(weights.arrays, "_fc")
    if name is None or classes is None:
        return None
    return Identified(IMAGE_CLASSIFIER, {"backbone": f"timm/{name}", "num_classes": classes})


def ported_rules(name: str, prefix: str = "") -> tuple[Rule, ...]:
    """Returns the rules that map module paths to variable names in EfficientNet-PyTorch.

    There is no rule for the classifier.

    Args:
      name: name of the network in timm, a key of `PORTED`.
      prefix: prefix of all variable names of the backbone, such as `encoder.`; empty if the file
        contains an image classifier.
    """
    rules = [
        Rule("backbone/stem", f"{prefix}_conv_stem", f"{prefix}_bn0"),
        Rule("head", f"{prefix}_conv_head", f"{prefix}_bn1"),
    ]
    for index, (stage, number, _) in enumerate(_units(PORTED[name])):
        ours, theirs = f"backbone/stage_{stage}/block_{number}", f"{prefix}_blocks.{index}"
        rules += unit_rules(ours, theirs, PORTED_LAYERS, ("_se_reduce", "_se_expand"))
    return tuple(rules)


def _rules_ported(identified: Identified) -> Sequence[Rule]:
    name = identified.overrides["backbone"].removeprefix("timm/")
    return (*ported_rules(name), Rule("classifier", "_fc"))


EFFICIENTNET_PYTORCH = Convention(
    name="EfficientNet-PyTorch", identify=_identify_ported, rules=_rules_ported, leaves=LEAVES
)
