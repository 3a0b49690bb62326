"""Rules for timm's variable names, one set for each family of `timm/…` backbones."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.backbones import convnext, regnet, resnet
from deeplab_jax.backbones.efficientnet_networks import NETWORKS as EFFICIENTNETS
from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.name_maps import efficientnet
from deeplab_jax.pretrained.name_maps.rules import (
    RESNET_UNIT,
    Rule,
    outputs,
    resnet_rules,
    unit_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

Arrays = Mapping[str, np.ndarray]
PREFIX = "timm/"
# Names of networks whose strided convolutions are followed by pooling, such as `resnetaa50d` and
# `mobilenetv4_conv_blur_medium`. Their arrays are those of the networks without this pooling.
ANTI_ALIASED = re.compile(r"(resnet|_)(aa|blur)(\d|_)")


class Family(NamedTuple):
    """Family of networks whose variable names follow the same rules.

    Attributes:
      names: names of the networks in timm.
      identify: function that takes the arrays of a network and returns its name in timm, or None if
        they belong to no network of this family.
      rules: function that takes a name in timm and returns the rules that map module paths to
        variable names, for all layers of the image classifier but the last.
      classifier: scope of the last layer of the image classifier.
    """

    names: Sequence[str]
    identify: Callable[[Arrays], str | None]
    rules: Callable[[str], tuple[Rule, ...]]
    classifier: str


def identify(weights: PublishedWeights) -> dict[str, Any] | None:
    """Returns the keywords of `create_classifier` for a `timm/…` classifier, or None.

    The result is None if the weights are not those of such a classifier.

    The architecture in the `config.json` beside the weights takes precedence over the names and
    shapes of the arrays.
    """
    named = str(weights.configuration.get("architecture"))
    for family in FAMILIES:
        name = named if named in family.names else family.identify(weights.arrays)
        classes = outputs(weights.arrays, family.classifier)
        if name is not None and classes is not None:
            return {"backbone": f"{PREFIX}{name}", "num_classes": classes}
    return None


def refuse_anti_aliasing(named: str) -> None:
    """Refuses a network of timm that downsamples with anti-aliasing.

    Args:
      named: name of the network in a `config.json`; empty: unknown.

    Raises:
      DeepLabError: the name is that of a network with anti-aliasing.
    """
    if ANTI_ALIASED.search(named):
        raise DeepLabError(
            f"the network {named} downsamples with anti-aliasing, which is not supported; convert "
            "a network without anti-aliasing, such as resnet50d or mobilenetv4_conv_large"
        )


def rules(backbone: str) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of a `timm/…` image classifier to timm's names."""
    return (*backbone_rules(backbone), Rule("classifier", _family(backbone).classifier))


def backbone_rules(backbone: str) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of a `timm/…` backbone to timm's names."""
    return _family(backbone).rules(backbone.removeprefix(PREFIX))


def _family(backbone: str) -> Family:
    name = backbone.removeprefix(PREFIX)
    return next(family for family in FAMILIES if name in family.names)


def identify_backbone(arrays: Arrays, named: str = "") -> str | None:
    """Returns the name of a `timm/…` backbone; None if it belongs to no known family.

    If `named` is not a network of a known family, the names and shapes of the arrays identify the
    backbone.

    Args:
      arrays: arrays of the backbone by name.
      named: name of the network in timm; empty: unknown.
    """
    if any(named in family.names for family in FAMILIES):
        return f"{PREFIX}{named}"
    found = (family.identify(arrays) for family in FAMILIES)
    return next((f"{PREFIX}{name}" for name in found if name is not None), None)


def if_tensorflow(backbone: str) -> dict[str, str]:
    """Returns the keyword of `create_model` that selects TensorFlow's padding for a backbone.

    The keyword is {"backbone": name}, where the name is that of the same network with TensorFlow's
    padding, such as `timm/tf_efficientnet_b0`; {} if there is no such network.

    Args:
      backbone: name of the backbone, such as `timm/efficientnet_b0`.
    """
    ported = efficientnet.if_tensorflow(backbone.removeprefix(PREFIX))
    return {"backbone": f"{PREFIX}{ported}"} if ported else {}


def _depths(arrays: Arrays, block: str, first: int) -> tuple[int, ...]:
    """Returns the number of blocks in each of four stages.

    Args:
      arrays: arrays by name.
      block: regular expression for the beginning of a name. Its two groups are the numbers of the
        stage and of the block.
      first: number of the first stage.
    """
    found = {match.groups() for match in map(re.compile(block).match, arrays) if match}
    return tuple(sum(stage == str(first + n) for stage, _ in found) for n in range(4))


def _same(ours: str, theirs: str) -> Rule:
    """Returns the rule for a module that is a single convolution or a single normalization.

    The rule has `theirs` as the scope of a kernel and as the scope of a normalization.

    Args:
      ours: path of the module in this codebase.
      theirs: scope of its variables in timm.
    """
    return Rule(ours, theirs, theirs)


def _convnext(arrays: Arrays) -> str | None:
    stem, version = arrays.get("stem.0.weight"), 1
    if stem is None or stem.shape[2:] != (4, 4):
        return None
    if "stages.0.blocks.0.mlp.grn.weight" in arrays:
        version = 2
    found = _depths(arrays, r"stages\.(\d)\.blocks\.(\d+)\.", first=0)
    wanted = (found, stem.shape[0], version)
    for name, size in convnext.SIZES.items():
        if (size.depths, size.widths[0], size.version) == wanted:
            return name
    return None


def _convnext_rules(name: str) -> tuple[Rule, ...]:
    del name
    stage, ours = "stages.{s-1}", "backbone/stage_{s}"
    block = f"{stage}.blocks.{{b-1}}"
    inside = {"depthwise": "conv_dw", "expand": "mlp.fc1", "project": "mlp.fc2"}
    return (
        _same("backbone/stem/patches", "stem.0"),
        _same("backbone/stem/norm", "stem.1"),
        _same(f"{ours}/downsample/norm", f"{stage}.downsample.0"),
        _same(f"{ours}/downsample/patches", f"{stage}.downsample.1"),
        Rule(f"{ours}/block_{{b}}", block, f"{block}.norm"),
        *(_same(f"{ours}/block_{{b}}/{part}", f"{block}.{at}") for part, at in inside.items()),
        _same(f"{ours}/block_{{b}}/response_norm", f"{block}.mlp.grn"),
        _same("pooled_norm", "head.norm"),
    )


DEEP_STEM = (
    Rule("backbone/stem_1", "conv1.0", "conv1.1"),
    Rule("backbone/stem_2", "conv1.3", "conv1.4"),
    Rule("backbone/stem_3", "conv1.6", "bn1"),
)


def _resnet(arrays: Arrays) -> str | None:
    inner, stem = arrays.get("layer1.0.conv2.weight"), outputs(arrays, "conv1.0")
    units = [name for name in arrays if name.startswith("layer")]
    if inner is None or not all(map(RESNET_UNIT.match, units)):
        return None
    found = _depths(arrays, r"layer(\d)\.(\d+)\.", first=1)
    bottleneck = "layer1.0.conv3.weight" in arrays
    groups = inner.shape[0] // inner.shape[1]
    variant = resnet.Variant(
        stem_width=stem or 0,
        average_shortcut=outputs(arrays, "layer2.0.downsample.0") is None,
        groups=groups,
        group_width=inner.shape[0] // groups,
    )
    for name, (depth, own) in resnet.TIMM.items():
        form = resnet.DEPTHS[depth]
        if (form.block_sizes, form.bottleneck, own) == (found, bottleneck, variant):
            return name
    return None


def _resnet_rules(name: str) -> tuple[Rule, ...]:
    _, variant = resnet.TIMM[name]
    rules = resnet_rules("")
    if variant.average_shortcut:
        # The pooling has the number 0.
        ours, theirs = "backbone/block{block}/unit_{unit}/shortcut", "layer{block}.{unit-1}"
        rules = (Rule(ours, f"{theirs}.downsample.1", f"{theirs}.downsample.2"), *rules)
    return (*DEEP_STEM, *rules) if variant.stem_width else rules


def _regnet(arrays: Arrays) -> str | None:
    inner = arrays.get("s1.b1.conv2.conv.weight")
    if inner is None or "s1.b1.se.fc1.weight" not in arrays:
        return None
    found = _depths(arrays, r"s(\d)\.b(\d+)\.", first=1)
    widths = tuple(outputs(arrays, f"s{stage}.b1.conv3.conv") for stage in (1, 2, 3, 4))
    wanted = (found, widths, inner.shape[1])
    return next((name for name, size in regnet.SIZES.items() if size == wanted), None)


def _regnet_rules(name: str) -> tuple[Rule, ...]:
    del name
    layers = {
        "conv{n}": ("conv{n}.conv", "conv{n}.bn"),
        "shortcut": ("downsample.conv", "downsample.bn"),
    }
    units = unit_rules("backbone/stage_{s}/block_{b}", "s{s}.b{b}", layers, ("se.fc1", "se.fc2"))
    return (Rule("backbone/stem", "stem.conv", "stem.bn"), *units)


FAMILIES = (
    Family(tuple(convnext.SIZES), _convnext, _convnext_rules, "head.fc"),
    Family(tuple(resnet.TIMM), _resnet, _resnet_rules, "fc"),
    Family(tuple(regnet.SIZES), _regnet, _regnet_rules, "head.fc"),
    Family(tuple(EFFICIENTNETS), efficientnet.identify, efficientnet.timm_rules, "classifier"),
)
