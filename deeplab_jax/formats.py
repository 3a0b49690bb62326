"""Format versions of files, and the renamed fields of earlier versions.

Version 1 (files without a version) holds only the keywords that the user gave. Default rates do not
follow the output stride, and keywords that the network does not read are ignored. Version 2 holds
the value of every keyword. Version 3 has the current names.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from deeplab_jax.errors import DeepLabError, unknown_name

FORMAT_VERSION = 3
# Key of the version in `model.json`, and in the `config.json` of a workdir.
FORMAT_FIELD = "format_version"
MODEL = "model."


class Rename(NamedTuple):
    """Renamed config field.

    Attributes:
      old: dotted name in earlier versions.
      new: current dotted name, or None for a removed field, which never changed results.
      values: current value by renamed value.
      version: first format version with the new name.
    """

    old: str
    new: str | None
    values: Mapping[Any, Any] = {}
    version: int = 3


RENAMES = (
    Rename("loss.hard_pixel_share", "loss.hard_pixel_fraction"),
    Rename("loss.hard_pixel_step", "loss.hard_pixel_anneal_steps"),
    Rename("loss.resolution", "loss.upsample_logits", {"image": True, "scores": False}),
    Rename("loss.every_scale", "loss.supervise_all_scales"),
    Rename("loss.rows_at_once", "loss.chunk_rows"),
    Rename("model.batch_norm_group", "model.ghost_batch_size"),
    Rename("model.scan_units", None),
    Rename("data.duplicate", "data.oversample_classes"),
    Rename("augmentation.max_class_share", "augmentation.max_class_fraction"),
    Rename(
        "training.rematerialize", "training.remat", {"normalizations": "norm", "units": "block"}
    ),
    Rename("training.init_parts", "training.init_scope", {"decimated": "vgg_decimated"}),
    Rename("parallel.space", "parallel.spatial"),
)
# Command-line flags whose name changed: old → new.
RENAMED_FLAGS = {"space": "spatial"}


def check_format_version(version: object) -> int:
    """Returns a format version, if this release can read it.

    Raises:
      DeepLabError: the version is invalid, or of a later release.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DeepLabError(f"format_version={version!r} must be a whole number of at least 1")
    if version > FORMAT_VERSION:
        raise DeepLabError(
            f"format_version={version} is newer than this release reads ({FORMAT_VERSION}); "
            "update deeplab_jax"
        )
    return version


def rewritten_version(version: int) -> int:
    """Returns the version that a file is rewritten with.

    Version 1 is kept, because its defaults determine the values of unset keywords.
    """
    return FORMAT_VERSION if version > 1 else version


def with_new_names(fields: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Returns the fields of a file with their current names and values.

    Args:
      fields: value of each config field by dotted name.
      version: format version of the file.
    """
    renames = {rename.old: rename for rename in RENAMES if version < rename.version}
    found = {}
    for name, value in fields.items():
        rename = renames.get(name)
        if rename is None:
            found[name] = value
        elif rename.new is not None:
            # Values without renames may be unhashable.
            found[rename.new] = rename.values.get(value, value) if rename.values else value
    return found


def with_new_keywords(keywords: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Returns the model keywords of a file with their current names; see `with_new_names`."""
    fields = with_new_names({MODEL + name: value for name, value in keywords.items()}, version)
    return {name.removeprefix(MODEL): value for name, value in fields.items()}


def is_old_name(name: str) -> bool:
    """Returns whether an earlier release had a field of this name, given without its section."""
    return any(name == rename.old.rpartition(".")[2] for rename in RENAMES)


def unknown_field(kind: str, name: str, legal: Iterable[str], prefix: str = "") -> DeepLabError:
    """Returns the error for an unknown field, with its new name or the nearest legal one.

    Args:
      kind: kind of the name, such as "config field".
      name: unknown name, with its section or without it as in a config file.
      legal: every legal name.
      prefix: section of the name and of the legal ones, such as "model.".
    """
    for rename in RENAMES:
        is_bare = not prefix and name == rename.old.rpartition(".")[2]
        if prefix + name != rename.old and not is_bare:
            continue
        if rename.new is None:
            return DeepLabError(f"{kind} {name!r} no longer exists; leave it out")
        values = "".join(f"; {old!r} is now {new!r}" for old, new in rename.values.items())
        return DeepLabError(
            f"{kind} {name!r} is now called {rename.new.removeprefix(prefix)!r}{values}"
        )
    return unknown_name(kind, name, legal)
