"""Reads, overrides, compares and writes configs; config_fields.py declares the fields.

A file in `configs/` starts from `default()` and sets only the fields that differ.
"""

import difflib
import importlib.resources
import json
import pathlib
import re
import runpy
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from deeplab_jax.config_fields import SET_IN_CONFIG, declared_fields, model_fields
from deeplab_jax.declarations import check_value, kind, parse_literal
from deeplab_jax.errors import DeepLabError, check_name, shortened
from deeplab_jax.files import as_path
from deeplab_jax.formats import (
    FORMAT_FIELD,
    check_format_version,
    is_old_name,
    unknown_field,
    with_new_names,
)


def default() -> ConfigDict:
    """Returns a config in which every field has its default.

    The config is locked: setting an unknown field is an error. Most fields of the section `model`
    are unset (None), so that the defaults of the architecture or of the backbone apply.
    """
    config = ConfigDict()
    config.model = ConfigDict()
    for name, owner, field in model_fields():
        is_set = name in SET_IN_CONFIG
        config.model[name] = field.default if is_set else placeholder(kind(owner, field))
    for name, owner, field in declared_fields():
        section = config
        for part in name.split(".")[:-1]:
            if part not in section:
                section[part] = ConfigDict()
            section = section[part]
        unset = field.default is None
        section[field.name] = placeholder(kind(owner, field)) if unset else field.default
    return config.lock()


def check(config: ConfigDict, section: str = "") -> None:
    """Checks every field outside the section `model` against its declaration.

    Args:
      config: whole config, or one of its sections.
      section: name of this section and a period, as in "loss."; empty for the whole config
        (default).

    Raises:
      DeepLabError: a value is illegal; the message names the field and the legal values.
    """
    values = dict(flatten(config, section))
    for name, owner, field in declared_fields():
        if name.startswith(section):
            check_value(owner, field, values[name], shown=name)


# Fields that may change when a run is resumed, because they do not change its results.
FREE_FIELDS = (
    "data.data_dir",
    "data.workers",
    "parallel.data",
    "parallel.spatial",
    "parallel.fsdp",
    "training.remat",
    "training.watchdog_seconds",
    "training.writers",
    "log_every_steps",
    "checkpoint.every_steps",
    "evaluation.batch_size",
)


def arguments(text: str | None, **defaults: Any) -> ConfigDict:
    """Parses the arguments of a config file, as in `--config=FILE:key=value,flag`.

    `get_config` of a config file calls this function with the text that it receives.

    Args:
      text: text after the colon, or None. An argument without a value, such as `flag`, is True.
      **defaults: default of every legal argument; its type is the type of the argument.

    Raises:
      DeepLabError: an argument is unknown or of the wrong type.
    """
    values = ConfigDict(defaults)
    for item in filter(None, (text or "").split(",")):
        key, _, value = item.partition("=")
        check_name("config argument", key, defaults)
        values[key] = _parse(key, value or "True", type(defaults[key]))
    return values


def load(reference: str) -> ConfigDict:
    """Returns the config that a file defines.

    Args:
      reference: `FILE[:arguments]`, where FILE is a path or the name of a packaged config.

    Raises:
      DeepLabError: there is no such file on this machine, an argument is illegal, or the code of
        the file raises an exception, sets a field that does not exist, or does not return a
        complete config.
    """
    name, _, text = reference.partition(":")
    if text.startswith("//"):
        raise DeepLabError(
            f"{reference}: config files are read from a local path only; copy the file to this "
            "machine, and give its path"
        )
    path = _find(name)
    try:
        names = runpy.run_path(str(path))
        if "get_config" not in names:
            raise DeepLabError(
                "the file does not define the function get_config, which must return the config"
            )
        config = names["get_config"](text or None)
        _check_fields(config)
        return config
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from None
    except Exception as error:
        unknown = _unknown_field(error)
        if unknown is None:
            raise DeepLabError(f"{path}: {_described(error, path)}") from error
        fields = [field for field, _ in flatten(default())]
        sections = {field.rpartition(".")[0] for field in fields} - {""}
        fields += sorted(sections)
        name = unknown if is_old_name(unknown) else _nearest_field(unknown, fields)
        raise DeepLabError(f"{path}: {unknown_field('config field', name, fields)}") from None


def _described(error: Exception, path: pathlib.Path) -> str:
    """Returns the line, type and message of an exception that the code of a config file raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"


def _check_fields(config: Any) -> None:
    """Checks that the value that `get_config` returned is a config with all fields."""
    start = "start from deeplab_jax.config.default(), and return the changed config"
    if not isinstance(config, ConfigDict):
        raise DeepLabError(
            f"get_config must return a ConfigDict, but returned {type(config).__name__}; {start}"
        )
    found = dict(flatten(config))
    missing = [field for field, _ in flatten(default()) if field not in found]
    if missing:
        raise DeepLabError(f"the config lacks {shortened(missing, 3)}; {start}")


def _unknown_field(error: Exception) -> str | None:
    """Returns the name of the unknown field that an exception of ml_collections reports.

    For all other exceptions, the result is None.
    """
    if not isinstance(error, AttributeError | KeyError):
        return None
    # ml_collections wraps the KeyError of a missing attribute, and calls an unknown field a "Key".
    wrapped = any(isinstance(argument, KeyError) for argument in error.args)
    if not wrapped and "does not exist" not in str(error):
        return None
    found = re.match(r"""\W*(?:Key "|)(\w*)""", str(error))
    return found and found[1]


def _nearest_field(name: str, fields: list[str]) -> str:
    """Prefixes the name of an unknown field with its probable section.

    This is the section of the existing field with the most similar name: `num_step` becomes
    `training.num_step`, for which the error message suggests `training.num_steps`. If no field has
    a similar name, or the most similar one is in no section, `name` is returned unchanged.

    Args:
      name: name of the unknown field, without a section.
      fields: dotted names of all fields, which are compared without their sections.
    """
    sections = {field.rpartition(".")[2]: field.rpartition(".")[0] for field in fields}
    nearest = difflib.get_close_matches(name, sections, n=1)
    return f"{sections[nearest[0]]}.{name}" if nearest and sections[nearest[0]] else name


def _find(name: str) -> pathlib.Path:
    path = as_path(name)
    if path.is_file() and path.suffix == ".py":
        return path
    in_checkout = path.parent == pathlib.Path("configs") and path.suffix in ("", ".py")
    # A directory of the same name, such as that of a dataset, does not hide a packaged config.
    is_name = in_checkout or path.name in ("", str(path))
    if path.is_file() or (path.is_dir() and not is_name):
        raise DeepLabError(
            f"{path} is not a Python file; give a .py file that defines get_config, or the "
            "name of a packaged config. The config.json of a workdir only records a run; to "
            "resume the run, give the config that it was started with"
        )
    packaged = _packaged_recipes()
    names = sorted(p.stem for p in packaged.glob("[!_]*.py"))
    if not is_name or (path.suffix and not in_checkout):
        raise DeepLabError(f"no config file {name}; packaged configs: {', '.join(names)}")
    check_name("config", path.stem, names)
    return packaged / f"{path.stem}.py"


def _packaged_recipes() -> pathlib.Path:
    try:
        return pathlib.Path(str(importlib.resources.files("deeplab_jax.configs")))
    except ModuleNotFoundError:
        package = pathlib.Path(__file__).parent
        raise DeepLabError(
            f"the packaged configs require that deeplab_jax is installed, but {package} "
            "is only on Python's import path; run pip install -e . in the checkout that contains it"
        ) from None


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the value of every field; `prefix` precedes all names."""
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field of a config in place, as `--config.FIELD=TEXT` does.

    Args:
      config: config to change.
      field: dotted name of the field.
      text: value as text, parsed by the type of the field.

    Raises:
      DeepLabError: there is no such field, or the text is not a value of its type.
    """
    fields = dict(flatten(config))
    if field not in fields:
        raise unknown_field("config field", field, fields)
    section, name = _section(config, field)
    kind = section.get_type(name)
    # `none` is the value of some fields of type str, such as `model.decoder`.
    is_none = text == "None" or (text.lower() == "none" and kind is not str)
    # Only a field that is unset by default can be set to None.
    if is_none and dict(flatten(default())).get(field, "") is None:
        value = None
    else:
        value = _parse(field, text, kind)
    with section.ignore_type():
        section[name] = value


def _section(config: ConfigDict, field: str) -> tuple[ConfigDict, str]:
    """Returns the section of a field, and the name of the field in that section."""
    owner, _, name = field.rpartition(".")
    return (config[owner] if owner else config), name


def _parse(field: str, text: str, kind: type) -> Any:
    """Converts text to a value of type `kind`; error messages name `field`."""
    if kind is str:
        return text
    value = parse_literal(text)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, list | tuple):
        value = _tuples(value)
    # An unquoted text, such as the name of a class, is not a literal: it is equal to `text`.
    elif kind is tuple and isinstance(value, int | float | str) and value != text:
        value = (value,)
    if type(value) is not kind:
        hint = "; separate values by commas, and put names in quotes, as in \"'road','car'\""
        raise DeepLabError(
            f"{field} must be of type {kind.__name__}, got {text!r}{hint if kind is tuple else ''}"
        )
    return value


def to_json(config: ConfigDict) -> str:
    """Returns the config as indented JSON with sorted keys; equal configs have equal texts."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Returns the config that the `config.json` of a workdir stores.

    Fields that are not in the file have their defaults. If an earlier release wrote the file, field
    names and values that have changed since then are converted to the current ones.

    Args:
      text: content of the file.

    Raises:
      DeepLabError: the file has an unknown field, or a later release wrote it.
    """
    config = default()
    known = dict(flatten(config))
    fields = dict(flatten(json.loads(text)))
    version = check_format_version(fields.pop(FORMAT_FIELD, 1))
    for field, value in with_new_names(fields, version).items():
        check_name("config field", field, known)
        section, name = _section(config, field)
        with section.ignore_type():
            section[name] = _tuples(value)
    return config


def read(path: pathlib.Path) -> ConfigDict:
    """Reads the `config.json` of a workdir, see `from_json`.

    Raises:
      DeepLabError: the file is damaged, has an unknown field, or was written by a later release.
        The message names the file.
    """
    try:
        return from_json(path.read_text())
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise DeepLabError(f"{path} cannot be read: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def differences(one: ConfigDict, other: ConfigDict) -> list[str]:
    """Returns "field: a → b" for every field that differs between two configs.

    Fields that do not change the results of a run, such as `data.data_dir` and `data.workers`, are
    left out.
    """
    first, second = dict(flatten(one)), dict(flatten(other))
    return [
        f"{field}: {first.get(field)} → {second.get(field)}"
        for field in sorted(first | second)
        if field not in FREE_FIELDS and _tuples(first.get(field)) != _tuples(second.get(field))
    ]
