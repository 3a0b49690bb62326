"""Config fields by their dotted names."""

from typing import Any

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import unknown_name


def get_field(config: ConfigDict, name: str) -> Any:
    """Returns a field's value.

    Raises:
      DeepLabError: there is no such field; names the nearest.
    """
    fields = dict(configs.flatten(config))
    if name not in fields:
        raise unknown_name("config field", name, fields)
    return fields[name]


def set_field(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a field; text is read as `--config.FIELD=TEXT` reads it.

    Raises:
      DeepLabError: there is no such field, or the text is not of its type.
    """
    if isinstance(value, str):
        configs.override(config, name, value)
        return
    get_field(config, name)
    owner, _, last = name.rpartition(".")
    section = config[owner] if owner else config
    with section.ignore_type():
        section[last] = value
