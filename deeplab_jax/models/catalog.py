"""Named architectures and the keywords that change them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from deeplab_jax.backbones import find_backbone
from deeplab_jax.errors import unknown_name
from deeplab_jax.models.architecture import Architecture, scaled_rates
from deeplab_jax.models.deeplab import DeepLab

# What each name decides before the caller's keywords.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "deeplab_v3": {"backbone": "resnet_101_beta", "decoder": "none"},
    "deeplab_v3plus": {"backbone": "resnet_101_beta", "decoder": "v3plus"},
}
SUMMARIES = {
    "deeplab_v3": "ASPP with concatenation and image pooling (arXiv 1706.05587)",
    "deeplab_v3plus": "DeepLab v3 with a decoder (arXiv 1802.02611)",
}
KEYWORDS = tuple(field.name for field in dataclasses.fields(Architecture))


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
    values = ARCHITECTURES[architecture] | overrides
    entry = find_backbone(values["backbone"])
    values = _backbone_defaults(architecture, values["backbone"]) | values
    values.setdefault("preprocessing", entry.preprocessing)
    rates = values.pop("atrous_rates", None)
    checked = Architecture(**{name: _frozen(value) for name, value in values.items()})
    rates = scaled_rates(checked.output_stride) if rates is None else _frozen(rates)
    return dataclasses.replace(checked, atrous_rates=rates)


def create_model(architecture: str, **overrides: Any) -> DeepLab:
    """Returns a DeepLab by name.

    Args:
      architecture: a name that `list_models` tells.
      **overrides: fields of `Architecture`; what is left out takes the architecture's default, or
        the backbone's own.

    Raises:
      DeepLabError: as `resolve`.
    """
    return DeepLab(resolve(architecture, **overrides))


def _backbone_defaults(architecture: str, backbone: str) -> dict[str, Any]:
    # The published MobileNetV2 networks of DeepLab v3 have no atrous branches.
    published = architecture == "deeplab_v3" and backbone == "mobilenet_v2"
    return {"head": "pooling"} if published else {}


def _frozen(value: Any) -> Any:
    """Lists become tuples, as files and flags give lists."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
