"""Named architectures, and the defaults that each format version gave them."""

from collections.abc import Callable, Mapping
from typing import Any

from deeplab_jax.architecture import (
    ARCHITECTURES,
    KEYWORDS,
    Architecture,
    check_names,
    scaled_rates,
)
from deeplab_jax.backbones import find_backbone
from deeplab_jax.formats import with_new_keywords
from deeplab_jax.models.deeplab import DeepLab
from deeplab_jax.models.keywords import settled
from deeplab_jax.models.output_stride import (
    CONCATENATED_RATES,
    FC6_RATES,
    STRIDES,
    SUMMED_RATES,
    Published,
    published_rates,
    scaled,
)

# Of ASPP in torchvision's networks, all at the output stride that each is published at.
TORCHVISION_RATES = (12, 24, 36)
# Channels of fc6 (DeepLab v2, table 1).
FC6_CHANNELS = {"large": 1024, "4x4": 4096, "7x7": 4096}


def resolve(architecture: str, **overrides: Any) -> Architecture:
    """Returns the named architecture with the keywords applied and all defaults decided.

    Raises:
      DeepLabError: a name, keyword or value is illegal; says which is nearest or legal.
    """
    check_names(architecture, overrides)
    given = {name: frozen(value) for name, value in overrides.items()}
    return settled(with_defaults(architecture, given, _rate_defaults), given)


def with_defaults(
    architecture: str, given: Mapping[str, Any], rate_defaults: Callable[..., dict[str, Any]]
) -> Architecture:
    """Returns the architecture with the caller's keywords, and defaults for all others."""
    values = {**ARCHITECTURES[architecture], **given}
    for decide in (_backbone_defaults, _head_defaults, rate_defaults):
        values = decide(architecture, values) | values
    values.pop("aspp", None)
    return Architecture(**values)


def create_model(architecture: str, **overrides: Any) -> DeepLab:
    """Returns a DeepLab by name.

    Args:
      architecture: a name that `list_models` returns.
      **overrides: fields of `Architecture`, or `aspp`; what is left out takes the architecture's
        default, or the backbone's own. Default rates keep their extent in the image at every
        output stride.

    Raises:
      DeepLabError: as `resolve`.
    """
    return DeepLab(resolve(architecture, **overrides))


def _backbone_defaults(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    entry = find_backbone(values["backbone"])
    caffe = architecture == "deeplab_v2" and entry.multi_grid_size > 0
    defaults: dict[str, Any] = {"preprocessing": entry.preprocessing}
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
        direct = architecture == "deeplab_v2" and values["backbone"] != "vgg_16"
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
    """Returns the rates, and those of `aspp`, with the extent that they were published with."""
    published = published_rates(values, values.get("aspp"), _concatenated_rates(architecture))
    stride, head = values.get("output_stride", 16), values["head"]
    # Other output strides are refused by the Architecture.
    if "atrous_rates" in values or stride not in STRIDES:
        return {"atrous_rates": published.rates}
    return {"atrous_rates": scaled(published, stride, head)}


def _concatenated_rates(architecture: str) -> Published:
    if not architecture.startswith("torchvision/"):
        return CONCATENATED_RATES
    return Published(TORCHVISION_RATES, ARCHITECTURES[architecture]["output_stride"])


def frozen(value: Any) -> Any:
    """Returns lists as tuples, as files and flags give lists."""
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


def resolve_stored(architecture: str, overrides: Mapping[str, Any], version: int) -> Architecture:
    """Returns the network that a file describes, with the defaults of the file's version.

    Args:
      architecture: a name that `list_models` returns.
      overrides: keywords of `create_model`, under the names of the file's version.
      version: format version of the file.

    Raises:
      DeepLabError: as `resolve`.
    """
    overrides = with_new_keywords(overrides, version)
    if version > 1 or architecture not in ARCHITECTURES or not set(overrides) <= set(KEYWORDS):
        return resolve(architecture, **overrides)
    given = {name: frozen(value) for name, value in overrides.items()}
    return settled(with_defaults(architecture, given, _first_rates), given={})


def _first_rates(architecture: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the default rates of version 1."""
    head, stride = values["head"], values.get("output_stride", 16)
    if values.get("aspp") is not None:
        # Checks the name.
        return {"atrous_rates": published_rates(values, values["aspp"], SUMMED_RATES["large"])[0]}
    if architecture.startswith("torchvision/"):
        return {"atrous_rates": TORCHVISION_RATES}
    if head == "large_fov":
        return {"atrous_rates": FC6_RATES.get(values.get("fov", "large"), FC6_RATES["large"])[0]}
    if head == "aspp" and values.get("fusion") == "sum":
        return {"atrous_rates": SUMMED_RATES["large"].rates}
    if head == "aspp" and stride in (4, 8, 16, 32):
        return {"atrous_rates": scaled_rates(stride)}
    return {"atrous_rates": ()}
