"""Variable names in segmentation_models.pytorch: DeepLabV3 and DeepLabV3Plus.

The names do not show the output stride, the atrous rates or the dropout. These settings are read
from the `config.json` that `save_pretrained` writes beside the weights, if there is one.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.name_maps import efficientnet, timm_backbones
from deeplab_jax.pretrained.name_maps.rules import (
    LEAVES,
    TIMM_LEAVES,
    Convention,
    Identified,
    Rule,
    names_of_single_output,
    outputs,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.name_maps.torchvision import aspp_rules, mobilenet_v2_rules
from deeplab_jax.pretrained.weights import PublishedWeights

NAME = "segmentation_models.pytorch"
SUPPORTED = (
    "DeepLabV3 and DeepLabV3Plus with the encoders resnet18 to resnet152, resnext50_32x4d, "
    "mobilenet_v2, efficientnet-b1, timm-efficientnet-b0 to b4 and lite0 to lite4, and tu-NAME if "
    "deeplab_jax has the backbone timm/NAME"
)
# Prefixes of the encoders of this codebase, and of those of timm (`tu-`).
OWN, OF_TIMM = "encoder.", "encoder.model."
V3, V3_PLUS = "deeplab_v3", "deeplab_v3plus"


class Names(NamedTuple):
    """Scopes of the layers in networks with a certain decoder and a certain kind of encoder.

    Attributes:
      architecture: name of the architecture, one of `list_models()`.
      aspp: scope of ASPP.
      rules: rules for the variable names of the layers after ASPP.
      encoder: text with which the names of all arrays of the encoder begin.
    """

    architecture: str
    aspp: str
    rules: tuple[Rule, ...]
    encoder: str = OWN


DECODERS = (
    Names(V3, "decoder.aspp", (Rule("refine", "decoder.conv", "decoder.bn"),)),
    # In early releases, this decoder was a Sequential.
    Names(V3, "decoder.0", (Rule("refine", "decoder.1", "decoder.2"),)),
    Names(
        V3_PLUS,
        "decoder.aspp.0",
        (
            Rule("refine_encoder/depthwise", "decoder.aspp.1.0"),
            Rule("refine_encoder/pointwise", "decoder.aspp.1.1", "decoder.aspp.2"),
            Rule("decoder/low_level", "decoder.block1.0", "decoder.block1.1"),
            Rule("decoder/refine_1/depthwise", "decoder.block2.0.0"),
            Rule("decoder/refine_1/pointwise", "decoder.block2.0.1", "decoder.block2.1"),
        ),
    ),
)
# Conventions of both networks. Images have sides that are multiples of the output stride.
COMMON = {
    "preprocessing": "mean_std",
    "align_corners": True,
    "multiple_of_stride": True,
    "batch_norm_decay": 0.9,
    "head": "aspp",
}
# Default output strides, and defaults of other fields of `config.json`.
OUTPUT_STRIDES = {V3: 8, V3_PLUS: 16}
DEFAULTS: Mapping[str, Any] = {
    "encoder_depth": 5,
    "decoder_atrous_rates": [12, 24, 36],
    "decoder_aspp_dropout": 0.5,
    "activation": None,
    "upsampling": None,
}


def identify(names: Names, weights: PublishedWeights) -> Identified | None:
    """Identifies a DeepLab network of segmentation_models.pytorch by its array names.

    Args:
      names: scopes of the layers. Only networks with these scopes are identified.
      weights: arrays of the file.

    Returns:
      The network, or None if the arrays have other names.

    Raises:
      DeepLabError: the network is not supported.
    """
    arrays = weights.arrays
    classes = outputs(arrays, "segmentation_head.0")
    channels = outputs(arrays, f"{names.aspp}.project.0")
    if classes is None or channels is None or names.encoder != _prefix(arrays):
        return None
    architecture = names.architecture
    values = {"encoder_output_stride": OUTPUT_STRIDES[architecture], **DEFAULTS}
    values |= weights.configuration
    _check_configuration(values, architecture)
    encoder = _encoder(names, weights)
    overrides = {
        **encoder,
        **COMMON,
        "num_classes": max(classes, 2),
        "output_stride": values["encoder_output_stride"],
        "atrous_rates": tuple(values["decoder_atrous_rates"]),
        "aspp_channels": channels,
        "dropout_rate": values["decoder_aspp_dropout"],
        **_decoder(names, arrays, channels),
    }
    if architecture == V3_PLUS and not encoder["backbone"].startswith(timm_backbones.PREFIX):
        overrides["low_level_source"] = "block"
    is_named = names.encoder == OWN or "encoder_name" in weights.configuration
    other = {} if is_named else timm_backbones.if_tensorflow(encoder["backbone"])
    return Identified(architecture, overrides, names_of_single_output(classes), other)


def _prefix(arrays: Mapping[str, Any]) -> str:
    return OF_TIMM if any(name.startswith(OF_TIMM) for name in arrays) else OWN


def _unsupported(reason: str) -> DeepLabError:
    return DeepLabError(f"{reason}; supported networks of {NAME}: {SUPPORTED}")


def _check_configuration(values: Mapping[str, Any], architecture: str) -> None:
    if values["encoder_depth"] != 5:
        raise _unsupported(
            f"encoder_depth in config.json is {values['encoder_depth']!r}, but must be 5"
        )
    rates = values["decoder_atrous_rates"]
    if not isinstance(rates, list | tuple):
        raise DeepLabError(
            f"decoder_atrous_rates in config.json is {rates!r}, but must be a list of rates, as in "
            "[12, 24, 36]; correct it, or remove it if the network has the default rates"
        )
    if values["activation"] not in (None, "identity"):
        raise DeepLabError(
            f"activation in config.json is {values['activation']!r}, but networks of deeplab_jax "
            "return logits; set activation to null to convert the network without it"
        )
    published = 4 if architecture == V3_PLUS else values["encoder_output_stride"]
    if values["upsampling"] not in (None, published):
        raise _unsupported(
            f"the network upsamples by a factor of {values['upsampling']!r} (upsampling in "
            f"config.json), but the factor must be {published!r}"
        )


def _decoder(names: Names, arrays: Mapping[str, Any], channels: int) -> dict[str, Any]:
    separable = f"{names.aspp}.convs.1.0.1.weight" in arrays
    inner = {"separable": True, "separable_norm": False} if separable else {"separable": False}
    if names.architecture == V3:
        return {"refine": True, **inner}
    if not separable:
        raise _unsupported(
            "a network with separable convolutions only in the decoder "
            "(decoder_aspp_separable=False) is not supported"
        )
    return {"refine_encoder": True, "decoder_convs": ((3, channels),), **inner}


def _encoder(names: Names, weights: PublishedWeights) -> dict[str, Any]:
    """Returns the keywords of `create_model` for the encoder, which becomes the backbone.

    Raises:
      DeepLabError: the encoder is not supported.
    """
    arrays, keywords = weights.arrays, dict[str, Any]()
    called = str(weights.configuration.get("encoder_name", ""))
    timm_backbones.refuse_anti_aliasing(called)
    encoder = {
        _name_in_timm(name.removeprefix(names.encoder)): array
        for name, array in arrays.items()
        if name.startswith(names.encoder)
    }
    if names.encoder == OWN:
        keywords["rate_start"] = "same_unit"
    if names.encoder == OWN and "features.18.0.weight" in encoder:
        backbone: str | None = "mobilenet_v2"
        keywords |= {"last_convolution": True, "batch_norm_epsilon": 1e-5}
    elif names.encoder == OWN and "_conv_stem.weight" in encoder:
        ported = efficientnet.ported_name(encoder)
        backbone = f"{timm_backbones.PREFIX}{ported}" if ported in STATIC_AS_DYNAMIC else None
    else:
        named = called.partition(".")[0].removeprefix("tu-")
        known = named if names.encoder == OF_TIMM else ""
        backbone = timm_backbones.identify_backbone(encoder, known)
        if backbone is None and "conv1.weight" in encoder:
            backbone = resnet_name(encoder, "")
    first = next((encoder[name] for name in FIRST if name in encoder), None)
    if backbone is None or first is None:
        raise _unsupported(f"the encoder {called} is not supported".replace("  ", " "))
    if not backbone.startswith(timm_backbones.PREFIX):
        keywords["stride_placement"] = "torchvision"
    channels = first.shape[1]
    if channels != 3:
        # The codebase has no normalization for such images; pixels are scaled to 0..1.
        keywords["in_channels"] = channels
        keywords |= {"pixel_mean": (0.0,) * channels, "pixel_std": (255.0,) * channels}
    return {"backbone": backbone, **keywords}


# Kernels of the first convolution of an encoder.
FIRST = (
    *("features.0.0.weight", "conv1.weight", "conv1.0.weight"),
    *("stem.0.weight", "stem.conv.weight", "conv_stem.weight", "_conv_stem.weight"),
)
# The codebase computes the padding of EfficientNet encoders for one image size. Only the padding of
# B1 is equal to that of TensorFlow at every size that is a multiple of the output stride. Larger
# encoders pad other sides, and B0 raises the rate in the middle of a stage.
STATIC_AS_DYNAMIC = ("tf_efficientnet_b1",)
# Beginnings of names such as `stages_0`, which timm uses in networks that return feature maps. Its
# image classifiers have `stages.0` instead.
FLATTENED = re.compile(r"^(stem|stages|blocks)_(?=\d)")


def _name_in_timm(name: str) -> str:
    """Converts the name of an encoder's array to the name in timm's image classifier.

    For example, `stages_0.…` becomes `stages.0.…`.
    """
    return FLATTENED.sub(r"\1.", name)


def _flattened(rule: Rule, names: Names) -> Rule:
    """Converts a rule for timm's image classifier to a rule for the encoder.

    Each scope gets the prefix of the encoder. `stem.0` becomes `stem_0`, and `stages.0` becomes
    `stages_0`.
    """
    theirs, norm = (
        scope and names.encoder + re.sub(r"^(stem|stages)\.(?=\d|{)", r"\1_", scope)
        for scope in (rule.theirs, rule.norm)
    )
    return rule._replace(theirs=theirs, norm=norm)


def rules(names: Names, identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to names in segmentation_models.pytorch.

    Args:
      names: scopes of the layers of the network.
      identified: the network.
    """
    options = identified.overrides
    encoder = resnet_rules(names.encoder)
    if options["backbone"] == "mobilenet_v2":
        encoder = (
            *mobilenet_v2_rules("encoder.features.{}".format),
            Rule("backbone/layer_19", "encoder.features.18.0", "encoder.features.18.1"),
        )
    elif names.encoder == OWN and options["backbone"].endswith(STATIC_AS_DYNAMIC):
        encoder = efficientnet.ported_rules(options["backbone"].partition("/")[2], OWN)
    elif options["backbone"].startswith(timm_backbones.PREFIX):
        of_timm = timm_backbones.backbone_rules(options["backbone"])
        encoder = tuple(_flattened(rule, names) for rule in of_timm)
    inner = "" if options["separable"] else None
    aspp = aspp_rules(names.aspp, options["atrous_rates"], options["aspp_channels"], inner)
    score = Rule("classifier", "segmentation_head.0", background=True)
    return (*encoder, *aspp, *names.rules, score)


def identify_others(weights: PublishedWeights) -> None:
    """Rejects networks of segmentation_models.pytorch that `identify` does not identify.

    The conversion calls this function after `identify` has returned None for all `Names`. If the
    arrays are not from segmentation_models.pytorch, this function returns None.

    Raises:
      DeepLabError: the arrays are from segmentation_models.pytorch.
    """
    arrays = weights.arrays
    if "segmentation_head.0.weight" in arrays and any(n.startswith("encoder.") for n in arrays):
        which = weights.configuration.get("_model_class", "the architecture of the network")
        raise _unsupported(f"{which} is not supported")


UNUSED = r"^classification_head\.|^encoder\.(_conv_head|_bn1|conv_head|bn2)\."
IGNORED = {UNUSED: "the segmentation network does not use this layer"}
SEGMENTATION_MODELS = (
    *(
        Convention(
            NAME, partial(identify, names), partial(rules, names), TIMM_LEAVES, ignored=IGNORED
        )
        for decoder in DECODERS
        for names in (decoder, decoder._replace(encoder=OF_TIMM))
    ),
    Convention(NAME, identify_others, lambda identified: (), LEAVES),
)
