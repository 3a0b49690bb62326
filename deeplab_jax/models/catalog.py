"""Named architectures and the keywords that change them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from deeplab_jax.backbones import find_backbone
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models.architecture import Architecture, scaled_rates
from deeplab_jax.models.deeplab import DeepLab

TORCHVISION = {
    "output_stride": 8,
    "atrous_rates": (12, 24, 36),
    "dropout_rate": 0.5,
    "refine": True,
    "aux_head": True,
    "stride_placement": "torchvision",
    "align_corners": False,
    "preprocessing": "mean_std",
    "batch_norm_decay": 0.9,
}
# What each name decides before the caller's keywords.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "deeplab_v1": {
        "backbone": "vgg_16",
        "output_stride": 8,
        "head": "large_fov",
        "image_pooling": "none",
        "dropout_rate": 0.5,
    },
    "deeplab_v2": {
        "backbone": "resnet_101",
        "output_stride": 8,
        "image_pooling": "none",
        "dropout_rate": 0.5,
    },
    "deeplab_v3": {"backbone": "resnet_101_beta"},
    "deeplab_v3plus": {"backbone": "xception_65", "decoder": "v3plus"},
    "torchvision/deeplabv3_resnet50": TORCHVISION | {"backbone": "resnet_50"},
    "torchvision/deeplabv3_resnet101": TORCHVISION | {"backbone": "resnet_101"},
    "torchvision/deeplabv3_mobilenet_v3_large": TORCHVISION
    | {"backbone": "mobilenet_v3_large", "output_stride": 16},
}
SUMMARIES = {
    "deeplab_v1": "VGG-16 with a large field of view (arXiv 1412.7062)",
    "deeplab_v2": "ASPP as a sum of scores (arXiv 1606.00915)",
    "deeplab_v3": "ASPP with concatenation and image pooling, or a cascade (arXiv 1706.05587)",
    "deeplab_v3plus": "DeepLab v3 with a decoder (arXiv 1802.02611)",
    "torchvision/deeplabv3_resnet50": "DeepLab v3 in torchvision's conventions",
    "torchvision/deeplabv3_resnet101": "the same on ResNet-101",
    "torchvision/deeplabv3_mobilenet_v3_large": "the same on MobileNetV3",
}
# `aspp` is short for atrous_rates of DeepLab v2 (section 4.1.2).
ASPP_RATES = {"small": (2, 4, 8, 12), "large": (6, 12, 18, 24)}
# Rate and channels of fc6 (DeepLab v2, table 1); the smaller kernel's other rate is 8.
FOV = {"large": ((12,), 1024), "4x4": ((4,), 4096), "7x7": ((4,), 4096)}
KEYWORDS = (*(field.name for field in dataclasses.fields(Architecture)), "aspp")


def list_models() -> dict[str, str]:
    """Returns every architecture's name with what it is."""
    return dict(SUMMARIES)


def resolve(architecture: str, **overrides: Any) -> Architecture:
    """Returns the named architecture with the keywords applied and all defaults decided.

    Raises:
      DeepLabError: a name, keyword or value is illegal; says which is nearest or legal.
    """
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    for keyword in overrides:
        if keyword not in KEYWORDS:
            raise unknown_name(f"keyword of {architecture}", keyword, KEYWORDS)
    given = {name: _frozen(value) for name, value in (overrides | _spelled_out(overrides)).items()}
    given.pop("aspp", None)
    values = ARCHITECTURES[architecture] | given
    for decide in (_backbone_defaults, _head_defaults, _rate_defaults):
        values = decide(architecture, values) | values
    return Architecture(**values)


def create_model(architecture: str, **overrides: Any) -> DeepLab:
    """Returns a DeepLab by name.

    Args:
      architecture: a name that `list_models` tells.
      **overrides: fields of `Architecture`, or `aspp`; what is left out takes the architecture's
        default, or the backbone's own.

    Raises:
      DeepLabError: as `resolve`.
    """
    return DeepLab(resolve(architecture, **overrides))


def _spelled_out(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the atrous rates that `aspp` is short for."""
    size = overrides.get("aspp")
    if size is None:
        return {}
    if size not in ASPP_RATES:
        raise unknown_name("aspp", str(size), ASPP_RATES)
    if overrides.get("atrous_rates") is not None:
        raise DeepLabError(f"aspp={size!r} decides the rates; leave atrous_rates out, or aspp")
    return {"atrous_rates": ASPP_RATES[size]}


def _backbone_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    name = values["backbone"]
    entry = find_backbone(name)
    caffe = architecture == "deeplab_v2" and entry.multi_grid_size > 0
    defaults: dict[str, Any] = {"preprocessing": entry.preprocessing}
    if "stride_placement" in entry.options:
        defaults["stride_placement"] = "caffe" if caffe else "slim"
    if caffe and entry.preprocessing == "mean":
        defaults["preprocessing"] = "caffe_bgr"
    if architecture == "deeplab_v3plus":
        defaults["separable"] = name.startswith("xception")
    if architecture == "deeplab_v3":
        # The published MobileNet networks have no atrous branches.
        published = {"mobilenet_v2": "pooling"}
        defaults["head"] = "lr_aspp" if name.endswith("_seg") else published.get(name, "aspp")
    return defaults


def _head_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    head = values.get("head", "aspp")
    defaults: dict[str, Any] = {"head": head}
    summed = architecture == "deeplab_v2" and head == "aspp"
    if summed:
        defaults["fusion"] = "sum"
    if head == "large_fov" or summed:
        direct = architecture == "deeplab_v2" and values["backbone"] != "vgg_16"
        fov = values.get("fov", "large")
        defaults["fc_channels"] = 0 if direct or fov not in FOV else FOV[fov][1]
    if head == "cascade":
        defaults["cascade_blocks"] = 7
    if head == "lr_aspp":
        defaults["aspp_channels"] = 128
    if values.get("decoder") == "conv2_conv3":
        defaults["decoder_convs"] = ((3, 256),)
    return defaults


def _rate_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    head, stride = values["head"], values.get("output_stride", 16)
    if head == "large_fov":
        fov = values.get("fov", "large")
        return {"atrous_rates": FOV.get(fov, FOV["large"])[0]}
    if head == "aspp" and values.get("fusion") == "sum":
        return {"atrous_rates": ASPP_RATES["large"]}
    # An output stride that ASPP cannot have is refused by the Architecture.
    if head == "aspp" and stride in (4, 8, 16, 32):
        return {"atrous_rates": scaled_rates(stride)}
    return {"atrous_rates": ()}


def _frozen(value: Any) -> Any:
    """Lists become tuples, as files and flags give lists."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
