"""Names of the released TensorFlow networks."""

from collections.abc import Sequence

from deeplab_jax.models import Architecture
from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import IMAGE_CLASSIFIER, Identified, Rule

SEMANTIC = "logits/semantic"
MOBILENET_LOGITS = "Logits/Conv2d_1c_1x1"

# Rules with `{scope}` already known: slim's mobilenet_v2.py and mobilenet_v3.py.
MOBILENET_V2 = (
    Rule("backbone/layer_1", "MobilenetV2/Conv"),
    Rule("backbone/layer_2/{part}", "MobilenetV2/expanded_conv/{part}"),
    Rule("backbone/layer_{n}/{part}", "MobilenetV2/expanded_conv_{n-2}/{part}"),
    Rule("layer_19", "MobilenetV2/Conv_1"),
)
SQUEEZE, EXCITE = (f"squeeze_excite/{name}" for name in ("Conv", "Conv_1"))
MOBILENET_V3 = (
    Rule("backbone/layer_1", "MobilenetV3/Conv"),
    Rule("backbone/layer_2/squeeze_excitation/squeeze", f"MobilenetV3/expanded_conv/{SQUEEZE}"),
    Rule("backbone/layer_2/squeeze_excitation/excite", f"MobilenetV3/expanded_conv/{EXCITE}"),
    Rule("backbone/layer_2/{part}", "MobilenetV3/expanded_conv/{part}"),
    Rule(
        "backbone/layer_{n}/squeeze_excitation/squeeze",
        f"MobilenetV3/expanded_conv_{{n-2}}/{SQUEEZE}",
    ),
    Rule(
        "backbone/layer_{n}/squeeze_excitation/excite",
        f"MobilenetV3/expanded_conv_{{n-2}}/{EXCITE}",
    ),
    Rule("backbone/layer_{n}/{part}", "MobilenetV3/expanded_conv_{n-2}/{part}"),
    Rule("backbone/layer_{n}", "MobilenetV3/Conv_1"),
    Rule("hidden", "MobilenetV3/Conv_2"),
)
# slim's vgg.py; its fully connected layers are DeepLab v1's with a field of view of 7×7.
VGG = (
    Rule("backbone/conv{block}_{n}", "vgg_16/conv{block}/conv{block}_{n}"),
    Rule("large_fov/{layer}", "vgg_16/{layer}"),
)
# deeplab/model.py and core/dense_prediction_cell.py.
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
    """Returns the name map of a released network."""
    overrides = dict(identified.overrides)
    if identified.architecture == IMAGE_CLASSIFIER:
        backbone = overrides["backbone"]
        return (*backbone_rules(backbone), Rule("classifier", classifier_scope(backbone)))
    options = resolve(identified.architecture, **overrides)
    backbone = options.backbone
    semantic = classifier_scope(backbone) if backbone == "vgg_16" else SEMANTIC
    return (
        *backbone_rules(backbone),
        *head_rules(options),
        *decoder_rules(options),
        Rule("classifier", semantic),
    )


def backbone_scope(backbone: str) -> str:
    """Returns the scope of a backbone's variables."""
    family, _, rest = backbone.partition("_")
    if family == "mobilenet":
        return f"MobilenetV{rest[1]}"
    return f"resnet_v1_{rest.removesuffix('_beta')}" if family == "resnet" else backbone


def classifier_scope(backbone: str) -> str:
    """Returns where the scores of ImageNet's classes are."""
    scope = backbone_scope(backbone)
    if backbone == "vgg_16":
        return f"{scope}/fc8"
    return f"{scope}/{MOBILENET_LOGITS if scope.startswith('Mobilenet') else 'logits'}"


def backbone_rules(backbone: str) -> Sequence[Rule]:
    """Returns where the convolutions of a backbone are."""
    scope = backbone_scope(backbone)
    fixed = {"MobilenetV2": MOBILENET_V2, "MobilenetV3": MOBILENET_V3, "vgg_16": VGG}
    if scope in fixed:
        return fixed[scope]
    return _xception(scope) if scope.startswith("xception") else _resnet(scope, backbone)


def _xception(scope: str) -> Sequence[Rule]:
    """deeplab/core/xception.py."""
    return (
        Rule("backbone/entry_flow/conv1_{n}", f"{scope}/entry_flow/conv1_{{n}}"),
        *(
            rule
            for ours, theirs in (
                ("middle_flow/unit_{unit}", "middle_flow/block1/unit_{unit}"),
                ("{flow}/{block}", "{flow}/{block}/unit_1"),
            )
            for rule in (
                Rule(
                    f"backbone/{ours}/{{layer}}/{{part}}",
                    f"{scope}/{theirs}/xception_module/{{layer}}_{{part}}",
                ),
                Rule(f"backbone/{ours}/shortcut", f"{scope}/{theirs}/xception_module/shortcut"),
            )
        ),
    )


def _resnet(scope: str, backbone: str) -> Sequence[Rule]:
    """deeplab/core/resnet_v1_beta.py and slim's resnet_v1.py."""
    unit = "lite_bottleneck_v1" if scope == "resnet_v1_18" else "bottleneck_v1"
    stem = (
        Rule("backbone/stem_{n}", f"{scope}/conv1_{{n}}")
        if backbone.endswith("_beta")
        else Rule("backbone/stem_1", f"{scope}/conv1")
    )
    return (
        stem,
        Rule("backbone/{block}/{unit}/{part}", f"{scope}/{{block}}/{{unit}}/{unit}/{{part}}"),
    )


def head_rules(options: Architecture) -> Sequence[Rule]:
    """Returns where the convolutions of a head are; ASPP's branches are numbered there."""
    if options.head in HEADS:
        return HEADS[options.head]
    branches = [
        rule
        for number, rate in enumerate(options.atrous_rates, start=1)
        for rule in (
            Rule(f"aspp/rate_{rate}", f"aspp{number}"),
            Rule(f"aspp/rate_{rate}/{{part}}", f"aspp{number}_{{part}}"),
        )
    ]
    return (*ASPP, *branches)


def decoder_rules(options: Architecture) -> Sequence[Rule]:
    """Returns where the convolutions of a decoder are; a second stage has a suffix there."""
    stages = {"v3plus": {"": ""}, "conv2_conv3": {"/conv3": "", "/conv2": "_1"}}
    return [
        rule
        for ours, suffix in stages.get(options.decoder, {}).items()
        for rule in (
            Rule(f"decoder{ours}/low_level", f"decoder/feature_projection0{suffix}"),
            Rule(
                f"decoder{ours}/refine_{{n}}/{{part}}",
                f"decoder/decoder_conv{{n-1}}{suffix}_{{part}}",
            ),
            Rule(
                f"decoder{ours}/refine_{{n}}",
                f"decoder/decoder_conv0{suffix}/decoder_conv0{suffix}_{{n}}",
            ),
        )
    ]
