"""Format versions of `model.json` and `config.json`, and conversion of renamed fields.

* Version 1 stores only the keywords of `create_model` that the user set. Files without a version
  have version 1. When such a file is read, keywords without effect are ignored, and omitted atrous
  rates have the defaults of earlier releases. These defaults are the same at all output strides,
  except for ASPP with `fusion=concat` in networks that are not torchvision's.
* Version 2 stores the value of every keyword of `create_model`.
* Version 3 stores fields and keywords under their current names.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from deeplab_jax.errors import DeepLabError, unknown_name

FORMAT_VERSION = 3
# Key of the version in `model.json` and in the `config.json` of a workdir.
FORMAT_FIELD = "format_version"
MODEL = "model."


class Rename(NamedTuple):
    """Config field that was renamed or removed.

    Attributes:
      old: dotted name in earlier format versions.
      new: current dotted name; None if the field was removed. Only fields that never changed
        results may be removed.
      values: values of the field that were also renamed, old → current.
      version: first format version without the old name.
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
    """Checks that this release can read a format version, and returns it.

    Raises:
      DeepLabError: the version is invalid, or a later release wrote it.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DeepLabError(f"format_version={version!r} must be a whole number of at least 1")
    if version > FORMAT_VERSION:
        raise DeepLabError(
            f"format_version={version} is newer than this release can read (at most "
            f"{FORMAT_VERSION}); update deeplab_jax"
        )
    return version


def rewritten_version(version: int) -> int:
    """Returns the format version to write when a file of format `version` is read and saved again.

    Files of version 1 remain at version 1, because the keywords that they omit have the defaults of
    version 1. Other files are written in the current version.
    """
    return FORMAT_VERSION if version > 1 else version


def with_new_names(fields: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Converts the names and values of stored config fields to the current ones.

    Args:
      fields: stored values by dotted name.
      version: format version of the file.
    """
    renames = {rename.old: rename for rename in RENAMES if version < rename.version}
    found = {}
    for name, value in fields.items():
        rename = renames.get(name)
        if rename is None:
            found[name] = value
        elif rename.new is not None:
            # The values of other fields may be unhashable, such as lists.
            found[rename.new] = rename.values.get(value, value) if rename.values else value
    return found


def with_new_keywords(keywords: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Converts the names and values of stored keywords of `create_model` to the current ones.

    Args:
      keywords: stored values by keyword.
      version: format version of the file.
    """
    fields = with_new_names({MODEL + name: value for name, value in keywords.items()}, version)
    return {name.removeprefix(MODEL): value for name, value in fields.items()}


def is_old_name(name: str) -> bool:
    """Returns whether a name is the earlier name of a config field that was renamed or removed.

    Args:
      name: name without the section before the dot, such as `space` for `parallel.space`.
    """
    return any(name == rename.old.rpartition(".")[2] for rename in RENAMES)


def unknown_field(kind: str, name: str, legal: Iterable[str], prefix: str = "") -> DeepLabError:
    """Returns the error for an unknown field; its message suggests the current or a similar name.

    Args:
      kind: noun that describes the name, such as "config field".
      name: the unknown name.
      legal: all legal names.
      prefix: section that `name` and all names in `legal` omit, with a dot, such as "model.".
        Empty: names include their sections, as in "model.backbone"; only `name` may omit it.
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
