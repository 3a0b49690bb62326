"""The network that a config describes, with the value of every keyword decided."""

from typing import Any

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.formats import FORMAT_VERSION
from deeplab_jax.models import Architecture, resolve_stored


def network_of(
    config: ConfigDict, num_classes: int = 21, version: int = FORMAT_VERSION
) -> Architecture:
    """Returns the network of a config.

    Args:
      config: see deeplab_jax/config.py.
      num_classes: of the data set.
      version: format version whose defaults decide the fields that are unset.

    Raises:
      DeepLabError: its values do not go together.
    """
    fields: dict[str, Any] = config.model.to_dict()
    architecture = fields.pop("architecture")
    keywords = {name: value for name, value in fields.items() if value is not None}
    if keywords.get("image_pooling") == "crop":
        keywords.setdefault("pooling_crop", tuple(config.augmentation.crop_size))
    return resolve_stored(architecture, {"num_classes": num_classes} | keywords, version)


def with_network(config: ConfigDict, network: Architecture) -> ConfigDict:
    """Returns a copy of the config in which no keyword of the network is unset."""
    resolved = configs.from_json(configs.to_json(config))
    model, values = resolved.model, network.describe()
    with model.ignore_type():
        for name in model:
            if name in values:
                model[name] = values[name]
        # Its rates are among the values.
        model.aspp = None
    return resolved
