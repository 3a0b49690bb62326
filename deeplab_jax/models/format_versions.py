"""Networks in files of every format version: each was written with the defaults of its time.

Version 1 (files that state none) holds the keywords that the user gave: rates that are not among
them do not follow the output stride, and keywords that the network does not read are ignored.
Version 2 holds the value of every keyword.
"""

from collections.abc import Mapping
from typing import Any

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.architecture import Architecture, scaled_rates
from deeplab_jax.models.atrous_rates import FC6_RATES, SUMMED_RATES, published_rates
from deeplab_jax.models.catalog import (
    ARCHITECTURES,
    KEYWORDS,
    TORCHVISION_RATES,
    frozen,
    resolve,
    with_defaults,
)
from deeplab_jax.models.reading import settled

FORMAT_VERSION = 2


def check_format_version(version: object) -> int:
    """Returns a format version that this code can read.

    Raises:
      DeepLabError: it is no version, or one of a later release.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DeepLabError(f"format_version={version!r} must be a whole number of at least 1")
    if version > FORMAT_VERSION:
        raise DeepLabError(
            f"format_version={version} is newer than this release reads ({FORMAT_VERSION}); "
            "update deeplab_jax"
        )
    return version


def resolve_stored(architecture: str, overrides: Mapping[str, Any], version: int) -> Architecture:
    """Returns the network that a file describes, with the defaults of the file's version.

    Args:
      architecture: a name that `list_models` returns.
      overrides: keywords of `create_model`.
      version: of the file's format.

    Raises:
      DeepLabError: as `resolve`.
    """
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
