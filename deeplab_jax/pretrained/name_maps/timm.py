"""Variable names that timm uses for Xceptions, MobileNets, `timm/…` backbones and some ResNets.

The ResNets are those with a stem of three convolutions. For all other ResNets, timm uses the same
variable names as torchvision. The names do not show whether a MobileNet was ported from TensorFlow,
or how images are normalized. Both facts are read from the `config.json` beside the weights.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from deeplab_jax.backbones import mobilenet, xception
from deeplab_jax.pretrained.name_maps import timm_backbones
from deeplab_jax.pretrained.name_maps.efficientnet import INVERTED, SEPARABLE
from deeplab_jax.pretrained.name_maps.rules import (
    IMAGE_CLASSIFIER,
    PYTORCH,
    TIMM_GATE,
    TIMM_LEAVES,
    Convention,
    Identified,
    Rule,
    outputs,
    preprocessing_of,
    resnet_name,
    resnet_rules,
    unit_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

# Prefix of networks that timm has ported from TensorFlow, with TensorFlow's padding.
FROM_TENSORFLOW = "tf_"
MOBILENET_ROWS = {
    "mobilenet_v2": mobilenet.V2_LAYERS,
    "mobilenet_v3_large": mobilenet.layers("large"),
    "mobilenet_v3_small": mobilenet.layers("small"),
}
# Input channels of the last convolution at depth multiplier 1.
LAST_WIDTH = {"mobilenet_v2": 320, "mobilenet_v3_large": 960, "mobilenet_v3_small": 576}
# Parts of a separable convolution.
PARTS = (("depthwise", "dw"), ("pointwise", "pw"))


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a network of timm by its array names and `config.json`.

    Returns:
      The network, or None if the array names are not those of a supported network of timm.

    Raises:
      DeepLabError: the network has anti-aliasing, or the normalization of the images is not
        supported.
    """
    timm_backbones.refuse_anti_aliasing(str(weights.configuration.get("architecture", "")))
    for identify_family in (_xception, _mobilenet, _deep_stem, timm_backbones.identify):
        overrides = identify_family(weights)
        if overrides is not None:
            overrides = {**overrides, **preprocessing_of(weights.configuration)}
            other = _if_tensorflow(overrides["backbone"])
            is_named = "architecture" in weights.configuration
            return Identified(IMAGE_CLASSIFIER, overrides, None, {} if is_named else other)
    return None


def _if_tensorflow(backbone: str) -> dict[str, Any]:
    if backbone.startswith("mobilenet_v3"):
        return {
            "stride_placement": "slim",
            "preprocessing": "minus_one_one",
            "batch_norm_epsilon": 1e-3,
        }
    return dict(timm_backbones.if_tensorflow(backbone))


def _xception(weights: PublishedWeights) -> dict[str, Any] | None:
    arrays, classes = weights.arrays, outputs(weights.arrays, "head.fc")
    # Xceptions with pre-activation, which are not supported, have no such array.
    if "blocks.0.stack.conv1.bn_dw.weight" not in arrays or classes is None:
        return None
    count = len({name.split(".")[1] for name in arrays if name.startswith("blocks.")})
    depth = next((depth for depth in (41, 65, 71) if len(xception.modules(depth)) == count), None)
    if depth is None:
        return None
    return {"backbone": f"xception_{depth}", "num_classes": classes}


def _mobilenet(weights: PublishedWeights) -> dict[str, Any] | None:
    arrays, classes = weights.arrays, outputs(weights.arrays, "classifier")
    scopes = (name.split(".") for name in arrays if name.endswith(".conv_dw.weight"))
    counts = Counter(scope[1] for scope in scopes if scope[0] == "blocks")
    units = [counts[stage] for stage in sorted(counts, key=int)]
    backbone = next((b for b, rows in MOBILENET_ROWS.items() if _stages(rows) == units), None)
    if backbone is None or classes is None or "conv_head.weight" not in arrays:
        return None
    overrides: dict[str, Any] = {"backbone": backbone, "num_classes": classes}
    multiplier = arrays["conv_head.weight"].shape[1] / LAST_WIDTH[backbone]
    if multiplier != 1:
        overrides["depth_multiplier"] = multiplier
        overrides |= {"width_divisor": 8} if backbone == "mobilenet_v2" else {}
    if not str(weights.configuration.get("architecture")).startswith(FROM_TENSORFLOW):
        overrides |= PYTORCH | {"batch_norm_epsilon": 1e-5}
    return overrides


def _stages(rows: Sequence[Any]) -> list[int]:
    """Returns the number of blocks in each stage of a MobileNet in timm.

    Consecutive blocks with the same number of output channels form a stage.

    Args:
      rows: configuration of each block; the attribute `features` is the number of output channels.
    """
    return [len(list(units)) for _, units in itertools.groupby(rows, lambda row: row.features)]


def _deep_stem(weights: PublishedWeights) -> dict[str, Any] | None:
    """Returns the keywords of `create_classifier` for a ResNet with a stem of three convolutions.

    The convolutions have 64, 64 and 128 channels, as in the backbones `resnet_…_beta` of this
    codebase. For other networks, the result is None.
    """
    classes, backbone = outputs(weights.arrays, "fc"), resnet_name(weights.arrays, "")
    if outputs(weights.arrays, "conv1.6") != 128 or backbone is None or classes is None:
        return None
    return {"backbone": f"{backbone}_beta", "num_classes": classes, **PYTORCH}


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of timm."""
    backbone = identified.overrides["backbone"]
    if backbone.startswith(timm_backbones.PREFIX):
        return timm_backbones.rules(backbone)
    if backbone.startswith("xception"):
        return xception_rules(int(backbone.rpartition("_")[2]))
    if backbone.startswith("mobilenet"):
        return mobilenet_rules(backbone)
    return (*timm_backbones.DEEP_STEM, *resnet_rules(""), Rule("classifier", "fc"))


def xception_rules(depth: int) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of an Xception to timm's variable names.

    timm numbers the blocks consecutively from 0, across the three flows.

    Args:
      depth: 41, 65 or 71.
    """
    rules = [
        Rule("backbone/entry_flow/conv1_1", "stem.0.conv", "stem.0.bn"),
        Rule("backbone/entry_flow/conv1_2", "stem.1.conv", "stem.1.bn"),
        Rule("classifier", "head.fc"),
    ]
    for number, name in enumerate(xception.modules(depth)):
        ours, block = f"backbone/{name}", f"blocks.{number}"
        rules.append(Rule(f"{ours}/shortcut", f"{block}.shortcut.conv", f"{block}.shortcut.bn"))
        separable, unit = f"{ours}/separable_conv{{n}}", f"{block}.stack.conv{{n}}"
        rules += [
            Rule(f"{separable}/{part}", f"{unit}.conv_{short}", f"{unit}.bn_{short}")
            for part, short in PARTS
        ]
    return tuple(rules)


def mobilenet_rules(backbone: str) -> tuple[Rule, ...]:
    """Returns the rules that map module paths of a MobileNet to timm's variable names.

    timm numbers the blocks within each stage; this codebase numbers them consecutively.
    """
    stages = _stages(MOBILENET_ROWS[backbone])
    units = [f"blocks.{stage}.{n}" for stage, count in enumerate(stages) for n in range(count)]
    rules = [Rule("backbone/layer_1", "conv_stem", "bn1"), Rule("classifier", "classifier")]
    for number, unit in enumerate(units, start=2):
        ours = f"backbone/layer_{number}"
        # The first block does not expand.
        rules += unit_rules(ours, unit, SEPARABLE if number == 2 else INVERTED, TIMM_GATE)
    if backbone == "mobilenet_v2":
        return (*rules, Rule("layer_19", "conv_head", "bn2"))
    last = f"blocks.{len(stages)}.0"
    end = Rule(f"backbone/layer_{len(units) + 2}", f"{last}.conv", f"{last}.bn1")
    return (*rules, end, Rule("hidden", "conv_head"))


TIMM = Convention(name="timm", identify=identify, rules=rules, leaves=TIMM_LEAVES)
