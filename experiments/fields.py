"""Access to config fields by dotted names, such as `model.output_stride`."""

from typing import Any

from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import unknown_name


def get_field(config: ConfigDict, name: str) -> Any:
    """Returns the value of a config field.

    Raises:
      DeepLabError: there is no such field. The message suggests the most similar name.
    """
    fields = dict(configs.flatten(config))
    if name not in fields:
        raise unknown_name("config field", name, fields)
    return fields[name]


def set_field(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a config field. A value of type str is parsed as in `--config.FIELD=TEXT`.

    Raises:
      DeepLabError: there is no such field, or the text cannot be parsed as the type of the field.
    """
    if isinstance(value, str):
        configs.override(config, name, value)
        return
    get_field(config, name)
    owner, _, last = name.rpartition(".")
    section = config[owner] if owner else config
    with section.ignore_type():
        section[last] = value
