"""Builds networks by the name of the architecture, and resolves the defaults of all keywords."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from deeplab_jax.architecture import Architecture
from deeplab_jax.architecture_fields import KEYWORDS
from deeplab_jax.backbones import find_backbone
from deeplab_jax.declarations import check_value
from deeplab_jax.formats import with_new_keywords
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.keywords import settled
from deeplab_jax.models.output_stride import (
    CONCATENATED_RATES,
    FC6_RATES,
    STRIDES,
    SUMMED_RATES,
    Published,
    default_aspp_rates,
    published_rates,
    rescaled,
)
from deeplab_jax.named_architectures import ARCHITECTURES, check_names

# ASPP rates in torchvision's networks, at the output stride of each published network.
TORCHVISION_RATES = (12, 24, 36)
# Number of output channels of fc6, by `fov` (DeepLab v2, table 1).
FC6_CHANNELS = {"large": 1024, "4x4": 4096, "7x7": 4096}


def resolve(architecture: str, **overrides: Any) -> Architecture:
    """Returns an architecture by name, with the given keywords and defaults for all others.

    Args:
      architecture: name of the architecture, one of `list_models()`.
      **overrides: keywords of `create_model`.

    Raises:
      DeepLabError: a name, keyword or value is invalid; the message states which are legal.
    """
    check_names(architecture, overrides)
    given = {name: frozen(value) for name, value in overrides.items()}
    return settled(with_defaults(architecture, given, _rate_defaults), given)


def with_defaults(
    architecture: str, given: Mapping[str, Any], rate_defaults: Callable[..., dict[str, Any]]
) -> Architecture:
    """Returns an architecture with the given keywords and defaults for all others.

    Args:
      architecture: name of the architecture, one of `list_models()`.
      given: keywords that the caller set, with tuples instead of lists.
      rate_defaults: function that maps (name of the architecture, keywords) to a dictionary with
        the default of `atrous_rates`.

    Raises:
      DeepLabError: a value is invalid; the message states which are legal.
    """
    # The defaults of other keywords are computed from these values.
    for field in dataclasses.fields(Architecture):
        if field.name in given:
            check_value(Architecture, field, given[field.name])
    values = {**ARCHITECTURES[architecture], **given}
    for decide in (_backbone_defaults, _head_defaults, rate_defaults):
        values = decide(architecture, values) | values
    values.pop("aspp", None)
    return Architecture(**values)


def create_model(architecture: str, **overrides: Any) -> DeepLab:
    """Returns a network by the name of its architecture.

    Args:
      architecture: name of the architecture, one of `list_models()`.
      **overrides: fields of `Architecture`, or `aspp`, the name of published atrous rates of
        DeepLab v2 (`small` or `large`). All other fields have the default of the architecture or
        of the backbone. Default atrous rates depend on the output stride: at half the output
        stride, the rates are twice as large.

    Raises:
      DeepLabError: a name, keyword or value is invalid; the message states which are legal.
    """
    return DeepLab(resolve(architecture, **overrides))


def _backbone_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    entry = find_backbone(values["backbone"])
    caffe = architecture == "deeplab_v2" and entry.has_multi_grid
    defaults: dict[str, Any] = {
        "preprocessing": entry.preprocessing,
        "align_corners": entry.align_corners,
    }
    if "stride_placement" in entry.options:
        defaults["stride_placement"] = "caffe" if caffe else "slim"
    if caffe and entry.preprocessing == "mean":
        defaults["preprocessing"] = "caffe_bgr"
    if architecture == "deeplab_v3plus":
        defaults["separable"] = entry.separable
    if architecture == "deeplab_v3":
        defaults["head"] = entry.head
    return defaults


def _head_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    head = values.get("head", "aspp")
    defaults: dict[str, Any] = {"head": head}
    summed = architecture == "deeplab_v2" and head == "aspp"
    if summed:
        defaults["fusion"] = "sum"
    if head == "large_fov" or summed:
        entry = find_backbone(values["backbone"])
        direct = architecture == "deeplab_v2" and not entry.fully_connected
        fov = values.get("fov", "large")
        defaults["fc_channels"] = 0 if direct else FC6_CHANNELS.get(fov, 0)
    if head == "cascade":
        defaults["cascade_blocks"] = 7
    if head == "lr_aspp":
        defaults["aspp_channels"] = 128
    if values.get("decoder") == "conv2_conv3":
        defaults["decoder_convs"] = ((3, 256),)
    return defaults


def _rate_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the default of `atrous_rates`: the published rates, scaled to the output stride."""
    published = published_rates(values, values.get("aspp"), _concatenated_rates(architecture))
    stride, head = values.get("output_stride", 16), values["head"]
    # `Architecture` rejects other output strides.
    if "atrous_rates" in values or stride not in STRIDES:
        return {"atrous_rates": published.rates}
    return {"atrous_rates": rescaled(published, stride, head)}


def _concatenated_rates(architecture: str) -> Published:
    if not architecture.startswith("torchvision/"):
        return CONCATENATED_RATES
    return Published(TORCHVISION_RATES, ARCHITECTURES[architecture]["output_stride"])


def frozen(value: Any) -> Any:
    """Returns a value with lists converted to tuples, recursively."""
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def resolve_stored(architecture: str, overrides: Mapping[str, Any], version: int) -> Architecture:
    """Returns the architecture that a model file describes.

    Args:
      architecture: name of the architecture, one of `list_models()`.
      overrides: keywords of `create_model` that the file stores. Their names depend on `version`.
      version: format version of the file, which determines the defaults.

    Raises:
      DeepLabError: a name, keyword or value is invalid; the message states which are legal.
    """
    overrides = with_new_keywords(overrides, version)
    if version > 1 or architecture not in ARCHITECTURES or not set(overrides) <= set(KEYWORDS):
        return resolve(architecture, **overrides)
    given = {name: frozen(value) for name, value in overrides.items()}
    return settled(with_defaults(architecture, given, _first_rates), given={})


def _first_rates(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the default of `atrous_rates` for model files of format version 1."""
    head, stride = values["head"], values.get("output_stride", 16)
    if values.get("aspp") is not None:
        # This call checks the name.
        return {"atrous_rates": published_rates(values, values["aspp"], SUMMED_RATES["large"])[0]}
    if architecture.startswith("torchvision/"):
        return {"atrous_rates": TORCHVISION_RATES}
    if head == "large_fov":
        return {"atrous_rates": FC6_RATES.get(values.get("fov", "large"), FC6_RATES["large"])[0]}
    if head == "aspp" and values.get("fusion") == "sum":
        return {"atrous_rates": SUMMED_RATES["large"].rates}
    if head == "aspp" and stride in (4, 8, 16, 32):
        return {"atrous_rates": default_aspp_rates(stride)}
    return {"atrous_rates": ()}
