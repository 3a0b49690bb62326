"""Variable names in mmsegmentation: DeepLab v3 and v3+ (ASPPHead, DepthwiseSeparableASPPHead).

The names do not show the output stride, the multi-grid, the alignment of corners or the dropout.
These settings are read from the training configuration in the checkpoint. A setting that a section
of the configuration omits has the default of mmsegmentation. If a section is missing, the settings
of the published networks with `d8` in their names (output stride 8) are used instead.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.backbones import mobilenet
from deeplab_jax.declarations import POSITIVES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.architectures import resolve
from deeplab_jax.pretrained.name_maps.rules import (
    LEAVES,
    Convention,
    Identified,
    Rule,
    outputs,
    resnet_name,
    resnet_rules,
)
from deeplab_jax.pretrained.weights import PublishedWeights

NAME = "mmsegmentation"
SUPPORTED = (
    "ASPPHead and DepthwiseSeparableASPPHead on ResNet and ResNetV1c of depth 50 and 101 and on "
    "MobileNetV2"
)
ASPP = "decode_head.aspp_modules"


def identify(weights: PublishedWeights) -> Identified | None:
    """Identifies a DeepLab network of mmsegmentation by array names and training configuration.

    Returns:
      The network, or None if the arrays have other names.

    Raises:
      DeepLabError: the network is from mmsegmentation, but is not supported.
    """
    arrays = weights.arrays
    classes = outputs(arrays, "decode_head.conv_seg")
    if classes is None:
        return None
    plain = f"{ASPP}.1.conv.weight" in arrays
    if not plain and f"{ASPP}.1.depthwise_conv.conv.weight" not in arrays:
        raise _unsupported("a decode head without ASPP is not supported")
    if classes == 1:
        raise _unsupported("a network with a single output (out_channels=1) is not supported")
    model = _section(weights.configuration, "model")
    head, backbone = _section(model, "decode_head"), _section(model, "backbone")
    channels = arrays["decode_head.bottleneck.conv.weight"].shape[0]
    overrides = {
        "num_classes": classes,
        "head": "aspp",
        "aspp_channels": channels,
        "projection_size": 3,
        "align_corners": bool(head.get("align_corners", False)),
        "batch_norm_decay": 0.9,
        **_backbone(arrays, backbone),
        **_preprocessing(weights.configuration, model),
        "aux_head": _has_auxiliary_head(arrays),
    }
    if head:
        overrides["atrous_rates"] = (_rates(head, "dilations") or (1, 6, 12, 18))[1:]
    dropout = head.get("dropout_ratio", 0.1)
    if plain:
        return Identified("deeplab_v3", {**overrides, "separable": False, "dropout_rate": dropout})
    low_level = outputs(arrays, "decode_head.c1_bottleneck.conv")
    if low_level is None:
        raise _unsupported(
            "a decode head without low-level features (c1_in_channels=0) is not supported"
        )
    decoder = {
        "low_level_channels": low_level,
        "separable": True,
        "decoder_convs": ((3, channels), (3, channels)),
        "dropout_rate": 0.0,
        "decoder_dropout": (0.0, dropout),
    }
    # The low-level features of the `timm/…` backbones are already outputs of blocks.
    if not overrides["backbone"].startswith("timm/"):
        decoder["low_level_source"] = "block"
    return Identified("deeplab_v3plus", overrides | decoder)


def _unsupported(reason: str) -> DeepLabError:
    return DeepLabError(f"{reason}; supported networks of {NAME}: {SUPPORTED}")


def _section(configuration: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a section of the training configuration; {} if the section is missing."""
    section = configuration.get(name, {})
    if not isinstance(section, Mapping):
        raise DeepLabError(
            f"{name} in the training configuration of the checkpoint is {section!r}, but must be a "
            "dict; to use the settings of the published d8 networks, give a file with only the "
            "state_dict"
        )
    return section


def _rates(section: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Returns the rates that a section of the training configuration lists; () if none."""
    rates = section.get(name) or ()
    if not (isinstance(rates, list | tuple) and POSITIVES.holds(tuple(rates))):
        raise DeepLabError(
            f"{name} in the training configuration of the checkpoint is {rates!r}, but must be a "
            f"list of {POSITIVES.words}"
        )
    return tuple(rates)


def _backbone(arrays: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords of `create_model` for the backbone.

    Args:
      arrays: arrays of the file by name.
      settings: section `backbone` of the training configuration. If it is empty, the settings of
        the published `d8` networks are used.

    Raises:
      DeepLabError: the backbone is not supported.
    """
    stride, dilations = _output_stride(settings)
    if "backbone.layer7.0.conv.0.conv.weight" in arrays:
        return {
            "backbone": "mobilenet_v2",
            "output_stride": stride,
            "stride_placement": "torchvision",
            "rate_start": "first_units",
            "batch_norm_epsilon": 1e-5,
        }
    caffe = settings.get("style") == "caffe"
    contract = settings.get("contract_dilation", not settings)
    if caffe and contract and stride < 32:
        # In this style, the 3×3 convolution comes after the stride, so it would have the new rate.
        raise _unsupported(
            "a backbone with style='caffe' and contract_dilation=True is not supported at output "
            f"stride {stride}"
        )
    keywords: dict[str, Any] = {
        **_resnet(arrays, caffe),
        "output_stride": stride,
        "rate_start": "next_unit" if caffe or contract else "same_unit",
    }
    multi_grid = _rates(settings, "multi_grid")
    if multi_grid:
        # In mmsegmentation, these are the rates themselves. Here, they are relative to the rate of
        # the unit, which in the first unit can be that of the previous block.
        base = dilations[-1]
        bases = [base if caffe or not contract else max(1, base // 2), base, base]
        if len(multi_grid) != len(bases) or any(map(operator.mod, multi_grid, bases)):
            raise _unsupported(
                f"multi_grid={multi_grid} must have 3 rates, one for each unit of the last block, "
                f"which are multiples of {bases[0]}, {bases[1]} and {bases[2]} in this order"
            )
        keywords["multi_grid"] = tuple(
            rate // unit for rate, unit in zip(multi_grid, bases, strict=True)
        )
    return keywords


def _resnet(arrays: Mapping[str, Any], caffe: bool) -> dict[str, Any]:
    """Returns the keywords of `create_model` for a `ResNet` or `ResNetV1c` of mmsegmentation.

    Args:
      arrays: arrays of the file by name.
      caffe: whether the stride is in the first convolution of a unit (`style='caffe'`).

    Raises:
      DeepLabError: the backbone is not supported.
    """
    backbone = resnet_name(arrays, "backbone.")
    stem = [outputs(arrays, f"backbone.stem.{place}") for place in (0, 3, 6)]
    # The shortcuts of ResNetV1d have the numbers 1 and 2.
    changed = "backbone.layer2.0.downsample.2.bias" in arrays
    if backbone == "resnet_18":
        raise _unsupported(
            "ResNet-18 is not supported, because in mmsegmentation, only the first of the two "
            "convolutions in each residual unit is atrous"
        )
    if backbone is not None and not changed:
        if stem == [None] * 3:
            placement = "caffe" if caffe else "torchvision"
            return {"backbone": backbone, "stride_placement": placement}
        if stem == [32, 32, 64] and not caffe:
            return {"backbone": f"timm/{backbone.replace('_', '')}c"}
    raise _unsupported("the type, depth or style of the backbone is not supported")


def _output_stride(settings: Mapping[str, Any]) -> tuple[int, Sequence[int]]:
    """Returns the output stride of the backbone, and the dilation of each of its stages.

    Args:
      settings: section `backbone` of the training configuration. If it is empty, the settings of
        the published `d8` networks are used.
    """
    dilations = _rates(settings, "dilations") or ((1,) * 4 if settings else (1, 1, 2, 4))
    return 32 // dilations[-1], dilations


def _preprocessing(configuration: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords of `create_model` for the normalization of input pixels.

    Args:
      configuration: training configuration.
      model: section `model` of the training configuration. If both this section and the top level
        of the configuration have a section `data_preprocessor` (mmsegmentation 1.x), the one in
        `model` is used.

    Raises:
      DeepLabError: the network expects the channels in the order blue, green, red.
    """
    processor = _section(model, PROCESSOR) or _section(configuration, PROCESSOR)
    # Version 0.x converts images to RGB by default, version 1.x does not.
    found = processor or {"to_rgb": True, **_section(configuration, "img_norm_cfg")}
    if not any(found.get(name) for name in ("to_rgb", "bgr_to_rgb", "rgb_to_bgr")):
        raise _unsupported("input channels in the order blue, green, red are not supported")
    mean, std = found.get("mean"), found.get("std")
    if processor and not mean:
        # Version 1.x then does not normalize pixels.
        mean, std = [0.0] * 3, [1.0] * 3
    if not mean or not std or (list(mean), list(std)) == IMAGENET:
        return {"preprocessing": "mean_std"}
    return {"preprocessing": "mean_std", "pixel_mean": tuple(mean), "pixel_std": tuple(std)}


# Section of the training configuration that normalizes images, in version 1.x.
PROCESSOR = "data_preprocessor"
# Mean and standard deviation of ImageNet, in pixel values.
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
AUXILIARY = "auxiliary_head"


def _has_auxiliary_head(arrays: Mapping[str, Any]) -> bool:
    """Returns whether the arrays contain an auxiliary head that `AuxiliaryHead` can represent.

    Before its classifier, `AuxiliaryHead` has a single convolution, which reduces the number of
    channels to a quarter.
    """
    kernel = arrays.get(f"{AUXILIARY}.convs.0.conv.weight")
    further = (f"{AUXILIARY}.convs.1.conv.weight", f"{AUXILIARY}.conv_cat.conv.weight")
    return (
        kernel is not None
        and kernel.shape[0] == kernel.shape[1] // 4
        and not any(name in arrays for name in further)
    )


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the rules that map module paths to the variable names of mmsegmentation."""
    options = identified.overrides
    backbone = resnet_rules("backbone.")
    if options["backbone"] == "mobilenet_v2":
        backbone = _mobilenet_rules()
    elif options["backbone"].startswith("timm/"):
        backbone = (*STEM, *backbone)
    rates = resolve(identified.architecture, **options).atrous_rates
    scopes = ((f"aspp/rate_{rate}", f"{ASPP}.{n}") for n, rate in enumerate(rates, start=1))
    return (
        *backbone,
        *HEAD,
        *(rule for ours, scope in scopes for rule in _conv_rules(ours, scope)),
        *_conv_rules("decoder/refine_{n}", "decode_head.sep_bottleneck.{n-1}"),
        Rule("classifier", "decode_head.conv_seg"),
        Rule("auxiliary/conv", f"{AUXILIARY}.convs.0.conv", f"{AUXILIARY}.convs.0.bn"),
        Rule("auxiliary/classifier", f"{AUXILIARY}.conv_seg"),
    )


def _conv_rules(ours: str, scope: str) -> tuple[Rule, ...]:
    """Returns the rules for a ConvModule or DepthwiseSeparableConvModule of mmsegmentation.

    Args:
      ours: path of the module in this codebase.
      scope: scope of its variables in mmsegmentation.
    """
    parts = ("depthwise", "pointwise")
    separable = (
        Rule(f"{ours}/{part}", f"{scope}.{part}_conv.conv", f"{scope}.{part}_conv.bn")
        for part in parts
    )
    return (Rule(ours, f"{scope}.conv", f"{scope}.bn"), *separable)


STEM = tuple(
    Rule(f"backbone/stem_{number}", f"backbone.stem.{place}", f"backbone.stem.{place + 1}")
    for number, place in enumerate((0, 3, 6), start=1)
)
HEAD = (
    *_conv_rules("aspp/image_pooling/conv", "decode_head.image_pool.1"),
    *_conv_rules("aspp/pointwise", f"{ASPP}.0"),
    *_conv_rules("aspp/projection", "decode_head.bottleneck"),
    *_conv_rules("decoder/low_level", "decode_head.c1_bottleneck"),
)


def _mobilenet_rules() -> tuple[Rule, ...]:
    """Returns the rules that map module paths of MobileNetV2 to names in mmsegmentation.

    mmsegmentation numbers the units within each stage; this codebase numbers them consecutively.
    """
    rules = list(_conv_rules("backbone/layer_1", "backbone.conv1"))
    stage, unit, width = 0, 0, 0
    for number, layer in enumerate(mobilenet.V2_LAYERS, start=2):
        stage, unit = (stage, unit + 1) if layer.features == width else (stage + 1, 0)
        width = layer.features
        parts = ("depthwise", "project") if number == 2 else ("expand", "depthwise", "project")
        for place, part in enumerate(parts):
            scope = f"backbone.layer{stage}.{unit}.conv.{place}"
            rules += _conv_rules(f"backbone/layer_{number}/{part}", scope)
    return tuple(rules)


MMSEGMENTATION = Convention(
    NAME,
    identify,
    rules,
    LEAVES,
    ignored={rf"^{AUXILIARY}\.": "this auxiliary head is not supported and only serves training"},
)
