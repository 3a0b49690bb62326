"""Variable names in jfzhang95/pytorch-deeplab-xception: v3+ on ResNet-101 and MobileNetV2.

The names do not show the output stride. It is set to 16, as in the published networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.backbones import mobilenet
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import (
    LEAVES,
    Convention,
    Identified,
    Rule,
    names_of_single_output,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

NAME = "jfzhang95/pytorch-deeplab-xception"
COMMON = {
    "output_stride": 16,
    "stride_placement": "torchvision",
    "low_level_source": "block",
    "separable": False,
    "preprocessing": "mean_std",
    "align_corners": True,
    "batch_norm_decay": 0.9,
}
# Dropout after ASPP and after the decoder convolutions by the scope of the classifier. Early
# releases had none.
DROPOUT: Mapping[str, Mapping[str, Any]] = {
    "decoder.last_conv.8": {"dropout_rate": 0.5, "decoder_dropout": (0.5, 0.1)},
    "decoder.last_conv.6": {"dropout_rate": 0.0},
}
HEAD = (
    Rule("aspp/image_pooling/conv", "aspp.global_avg_pool.1", "aspp.global_avg_pool.2"),
    Rule("aspp/pointwise", "aspp.aspp1.atrous_conv", "aspp.aspp1.bn"),
    Rule("aspp/projection", "aspp.conv1", "aspp.bn1", moved=256),
    Rule("decoder/low_level", "decoder.conv1", "decoder.bn1"),
    Rule("decoder/refine_1", "decoder.last_conv.0", "decoder.last_conv.1"),
)


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a DeepLab v3+ network of jfzhang95's codebase by its array names.

    Returns:
      The network, or None if the arrays have other names.

    Raises:
      DeepLabError: the backbone is not supported.
    """
    arrays = weights.arrays
    last = next((scope for scope in DROPOUT if f"{scope}.weight" in arrays), None)
    if last is None or "aspp.aspp1.atrous_conv.weight" not in arrays:
        return None
    classes = arrays[f"{last}.weight"].shape[0]
    overrides: dict[str, Any] = {**_backbone(weights), **COMMON, **DROPOUT[last]}
    overrides["num_classes"] = max(classes, 2)
    return Identified("deeplab_v3plus", overrides, names_of_single_output(classes))


def _backbone(weights: PublishedWeights) -> dict[str, Any]:
    arrays = weights.arrays
    if "backbone.features.17.conv.0.weight" in arrays:
        return {
            "backbone": "mobilenet_v2",
            "batch_norm_epsilon": 1e-5,
            "pad_before_expansion": True,
            "rate_start": "next_stage",
        }
    # DRN has further layers, whose names start with layer0 and layer5.
    drn, xception = (f"backbone.{name}.weight" in arrays for name in ("layer0.0", "block20.skip"))
    backbone = resnet_name(arrays, "backbone.")
    if backbone is None or drn or xception:
        name = "DRN " if drn else "Xception " if xception else ""
        raise DeepLabError(
            f"the backbone {name}is not supported; supported backbones of {NAME}: resnet, mobilenet"
        )
    return {"backbone": backbone, "multi_grid": (1, 2, 4), "rate_start": "same_unit"}


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of jfzhang95's codebase."""
    options = identified.overrides
    backbone = resnet_rules("backbone.")
    if options["backbone"] == "mobilenet_v2":
        backbone = _mobilenet_rules()
    rates = resolve(identified.architecture, **options).atrous_rates
    scopes = ((f"aspp/rate_{rate}", f"aspp.aspp{n}") for n, rate in enumerate(rates, start=2))
    second, last = (4, 8) if "decoder_dropout" in options else (3, 6)
    refine = f"decoder.last_conv.{second}", f"decoder.last_conv.{second + 1}"
    return (
        *backbone,
        *HEAD,
        *(Rule(ours, f"{scope}.atrous_conv", f"{scope}.bn") for ours, scope in scopes),
        Rule("decoder/refine_2", *refine),
        Rule("classifier", f"decoder.last_conv.{last}", background=True),
    )


def _mobilenet_rules() -> tuple[Rule, ...]:
    """Returns the rules that map paths of MobileNetV2 to names such as `features.2.conv.3`."""
    rules = [Rule("backbone/layer_1", "backbone.features.0.0", "backbone.features.0.1")]
    for number in range(1, len(mobilenet.V2_LAYERS) + 1):
        # The first unit does not expand.
        parts = ("depthwise", "project") if number == 1 else ("expand", "depthwise", "project")
        scope = f"backbone.features.{number}.conv"
        rules += [
            Rule(f"backbone/layer_{number + 1}/{part}", f"{scope}.{place}", f"{scope}.{place + 1}")
            for part, place in zip(parts, (0, 3, 6), strict=False)
        ]
    return tuple(rules)


JFZHANG95 = Convention(
    NAME,
    identify,
    rules,
    LEAVES,
    ignored={
        r"^backbone\.(low|high)_level_features\.": "it is a copy of an array of backbone.features"
    },
)
