"""Rules for the variable names of the networks released in tensorflow/models."""

from collections.abc import Sequence

from deeplab_jax.models import Architecture
from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import IMAGE_CLASSIFIER, Identified, Rule

SEMANTIC = "logits/semantic"
MOBILENET_LOGITS = "Logits/Conv2d_1c_1x1"

# Names in mobilenet_v2.py and mobilenet_v3.py of TensorFlow-Slim.
MOBILENET_V2 = (
    Rule("backbone/layer_1", "MobilenetV2/Conv"),
    Rule("backbone/layer_2/{part}", "MobilenetV2/expanded_conv/{part}"),
    Rule("backbone/layer_{n}/{part}", "MobilenetV2/expanded_conv_{n-2}/{part}"),
    Rule("layer_19", "MobilenetV2/Conv_1"),
)
UNIT_PARTS = (
    ("squeeze_excitation/squeeze", "squeeze_excite/Conv"),
    ("squeeze_excitation/excite", "squeeze_excite/Conv_1"),
    ("{part}", "{part}"),
)
MOBILENET_V3 = (
    Rule("backbone/layer_1", "MobilenetV3/Conv"),
    *(
        Rule(f"backbone/{layer}/{ours}", f"MobilenetV3/{unit}/{theirs}")
        for layer, unit in (("layer_2", "expanded_conv"), ("layer_{n}", "expanded_conv_{n-2}"))
        for ours, theirs in UNIT_PARTS
    ),
    Rule("backbone/layer_{n}", "MobilenetV3/Conv_1"),
    Rule("hidden", "MobilenetV3/Conv_2"),
)
# Names in vgg.py of TensorFlow-Slim. The fully connected layers are those of DeepLab v1 with a
# field of view of 7×7.
VGG = (
    Rule("backbone/conv{block}_{n}", "vgg_16/conv{block}/conv{block}_{n}"),
    Rule("large_fov/{layer}", "vgg_16/{layer}"),
)
# Names in deeplab/model.py and deeplab/core/dense_prediction_cell.py.
HEADS = {
    "lr_aspp": (
        Rule("lr_aspp/pointwise", "aspp0"),
        Rule("lr_aspp/gate", "image_pooling"),
        Rule("lr_aspp/classifier", "decoder/decoder_conv0"),
        Rule("lr_aspp/low_level_classifier", "decoder/feature_projection0"),
    ),
    "dpc": (
        Rule("dpc/branch_{n}/{part}", "meta_architecture/branch{n}_{part}"),
        Rule("dpc/projection", "meta_architecture/concat_projection"),
    ),
}
ASPP = (
    Rule("{head}/image_pooling/conv", "image_pooling"),
    Rule("{head}/pointwise", "aspp0"),
    Rule("{head}/projection", "concat_projection"),
)


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of tensorflow/models."""
    backbone = identified.overrides["backbone"]
    is_classifier = identified.architecture == IMAGE_CLASSIFIER
    scores = classifier_scope(backbone) if is_classifier or backbone == "vgg_16" else SEMANTIC
    found = (*backbone_rules(backbone), Rule("classifier", scores))
    if is_classifier:
        return found
    options = resolve(identified.architecture, **identified.overrides)
    return (*found, *head_rules(options), *decoder_rules(options))


def backbone_scope(backbone: str) -> str:
    """Returns the scope of the variables of a backbone in the released TensorFlow code."""
    family, _, rest = backbone.partition("_")
    if family == "mobilenet":
        return f"MobilenetV{rest[1]}"
    return f"resnet_v1_{rest.removesuffix('_beta')}" if family == "resnet" else backbone


def classifier_scope(backbone: str) -> str:
    """Returns the scope of a backbone's ImageNet classifier in the released TensorFlow code."""
    scope = backbone_scope(backbone)
    if backbone == "vgg_16":
        return f"{scope}/fc8"
    return f"{scope}/{MOBILENET_LOGITS if scope.startswith('Mobilenet') else 'logits'}"


def backbone_rules(backbone: str) -> Sequence[Rule]:
    """Returns the rules that map module paths of a backbone to names in tensorflow/models."""
    scope = backbone_scope(backbone)
    fixed = {"MobilenetV2": MOBILENET_V2, "MobilenetV3": MOBILENET_V3, "vgg_16": VGG}
    if scope in fixed:
        return fixed[scope]
    return _xception(scope) if scope.startswith("xception") else _resnet(scope, backbone)


def _xception(scope: str) -> Sequence[Rule]:
    """Returns the rules that map module paths of an Xception to names in tensorflow/models.

    The names are defined in deeplab/core/xception.py.
    """
    rules = [Rule("backbone/entry_flow/conv1_{n}", f"{scope}/entry_flow/conv1_{{n}}")]
    for ours, theirs in (
        ("middle_flow/unit_{unit}", "middle_flow/block1/unit_{unit}"),
        ("{flow}/{block}", "{flow}/{block}/unit_1"),
    ):
        at, module = f"backbone/{ours}", f"{scope}/{theirs}/xception_module"
        rules.append(Rule(f"{at}/{{layer}}/{{part}}", f"{module}/{{layer}}_{{part}}"))
        rules.append(Rule(f"{at}/shortcut", f"{module}/shortcut"))
    return rules


def _resnet(scope: str, backbone: str) -> Sequence[Rule]:
    """Returns the rules that map module paths of a ResNet to names in tensorflow/models.

    The names are defined in deeplab/core/resnet_v1_beta.py and TensorFlow-Slim's resnet_v1.py.
    """
    unit = "lite_bottleneck_v1" if scope == "resnet_v1_18" else "bottleneck_v1"
    return (
        Rule("backbone/stem_1", f"{scope}/conv1{'_1' if backbone.endswith('_beta') else ''}"),
        Rule("backbone/stem_{n}", f"{scope}/conv1_{{n}}"),
        Rule("backbone/{block}/{unit}/{part}", f"{scope}/{{block}}/{{unit}}/{unit}/{{part}}"),
    )


def head_rules(options: Architecture) -> Sequence[Rule]:
    """Returns the rules that map module paths of a head to names in tensorflow/models.

    The path of an atrous ASPP branch contains the atrous rate. The name in tensorflow/models
    contains the number of the branch, from 1.

    Args:
      options: architecture of the network.
    """
    if options.head in HEADS:
        return HEADS[options.head]
    rules = [*ASPP]
    for number, rate in enumerate(options.atrous_rates, start=1):
        rules.append(Rule(f"aspp/rate_{rate}", f"aspp{number}"))
        rules.append(Rule(f"aspp/rate_{rate}/{{part}}", f"aspp{number}_{{part}}"))
    return rules


def decoder_rules(options: Architecture) -> Sequence[Rule]:
    """Returns the rules that map module paths of a decoder to names in tensorflow/models.

    The names of the second stage of a two-stage decoder are those of the first stage with a suffix.

    Args:
      options: architecture of the network.
    """
    stages = {"v3plus": {"": ""}, "conv2_conv3": {"/conv3": "", "/conv2": "_1"}}
    rules = []
    for stage, suffix in stages.get(options.decoder, {}).items():
        ours, dense = f"decoder{stage}", f"decoder_conv0{suffix}"
        separable = f"decoder/decoder_conv{{n-1}}{suffix}"
        rules.append(Rule(f"{ours}/low_level", f"decoder/feature_projection0{suffix}"))
        rules.append(Rule(f"{ours}/refine_{{n}}/{{part}}", f"{separable}_{{part}}"))
        rules.append(Rule(f"{ours}/refine_{{n}}", f"decoder/{dense}/{dense}_{{n}}"))
    return rules
