"""Variable names in VainF/DeepLabV3Plus-Pytorch: v3 and v3+ on ResNets and MobileNetV2.

The names do not show the output stride. It is set to 16, as in the published networks.
"""

from collections.abc import Sequence
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import (
    LEAVES,
    Convention,
    Identified,
    Rule,
    names_of_single_output,
    outputs,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.name_maps.torchvision import (
    aspp_rules,
    conv_rules,
    mobilenet_v2_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

NAME = "VainF/DeepLabV3Plus-Pytorch"
# Scopes of ASPP and of the classifier by architecture.
SCOPES = {
    "deeplab_v3plus": ("classifier.aspp", "classifier.classifier.3"),
    "deeplab_v3": ("classifier.classifier.0", "classifier.classifier.4"),
}
COMMON = {
    "output_stride": 16,
    "head": "aspp",
    "stride_placement": "torchvision",
    "preprocessing": "mean_std",
    "align_corners": False,
    "batch_norm_decay": 0.99,
}
# Prefix of the parts of a separable convolution.
BODY = "body."


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a DeepLab network of VainF's codebase by its array names.

    Returns:
      The network, or None if the arrays have other names.

    Raises:
      DeepLabError: the backbone is not supported.
    """
    arrays = weights.arrays
    for architecture, (aspp, classifier) in SCOPES.items():
        classes = outputs(arrays, classifier)
        if f"{aspp}.convs.0.0.weight" in arrays and classes is not None:
            separable = f"{aspp}.convs.1.0.{BODY}0.weight" in arrays
            overrides = {**_backbone(weights), **COMMON, "num_classes": max(classes, 2)}
            overrides |= _head(architecture, separable)
            return Identified(architecture, overrides, names_of_single_output(classes))
    return None


def _backbone(weights: PublishedWeights) -> dict[str, Any]:
    if "backbone.low_level_features.0.0.weight" in weights.arrays:
        return {
            "backbone": "mobilenet_v2",
            "batch_norm_epsilon": 1e-5,
            "pad_first_convolution": False,
            "pad_before_expansion": True,
        }
    backbone = resnet_name(weights.arrays, "backbone.")
    if backbone is None:
        hrnet = any(name.startswith("backbone.stage4.") for name in weights.arrays)
        raise DeepLabError(
            f"the backbone {'HRNet ' if hrnet else ''}is not supported; supported backbones of "
            f"{NAME}: resnet50, resnet101, mobilenet"
        )
    return {"backbone": backbone}


def _head(architecture: str, separable: bool) -> dict[str, Any]:
    head: dict[str, Any] = {"separable": separable}
    if separable:
        head["separable_norm"] = False
    if architecture == "deeplab_v3plus":
        return head | {"low_level_source": "block", "decoder_convs": ((3, 256),)}
    return head | {_refinement(separable): True}


def _refinement(separable: bool) -> str:
    """Returns the name of the module for the 3×3 convolution after ASPP in VainF's v3.

    The module `refine_encoder` can be separable; `refine` is always dense. The keyword of
    `create_model` that adds the module has the same name.
    """
    return "refine_encoder" if separable else "refine"


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of VainF's codebase."""
    options = identified.overrides
    backbone = resnet_rules("backbone.")
    if options["backbone"] == "mobilenet_v2":
        backbone = mobilenet_v2_rules(_feature)
    aspp, classifier = SCOPES[identified.architecture]
    rates = resolve(identified.architecture, **options).atrous_rates
    inner = BODY if options["separable"] else None
    ours, number, moved = _refinement(options["separable"]), 1, 0
    if identified.architecture == "deeplab_v3plus":
        # VainF's decoder concatenates the low-level features first, this codebase last.
        ours, number, moved = "decoder/refine_1", 0, 256
    return (
        *backbone,
        *aspp_rules(aspp, rates, 256, inner),
        Rule("decoder/low_level", "classifier.project.0", "classifier.project.1"),
        *conv_rules(ours, "classifier.classifier", number, inner, moved),
        Rule("classifier", classifier, background=True),
    )


def _feature(number: int) -> str:
    """Returns VainF's name of the MobileNetV2 layer that torchvision names `features.{number}`."""
    part = "low" if number < 4 else "high"
    return f"backbone.{part}_level_features.{number}"


VAINF = Convention(NAME, identify, rules, LEAVES)
