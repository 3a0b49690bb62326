"""From whatever names a model to its directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplab_jax import checkpointing, pretrained
from deeplab_jax.checkpointing import is_model
from deeplab_jax.errors import DeepLabError, nearest_names
from deeplab_jax.files import as_path, cache_directory
from deeplab_jax.pretrained.archives import is_there, unpacked
from deeplab_jax.pretrained.catalog import PretrainedModel, find_pretrained, list_pretrained
from deeplab_jax.pretrained.fetching import fetch, locked
from deeplab_jax.reporter import LoggingReporter, Reporter

if TYPE_CHECKING:
    from deeplab_jax.pretrained.conversion import Conversion


def locate(reference: str | Path, reporter: Reporter | None = None) -> Path:
    """Returns the model directory or workdir that a reference means.

    Args:
      reference: path of either, or a name of `list_pretrained`. Weights of that name are downloaded
        and converted on first use.
      reporter: receives the progress of downloads; by default the logger does.

    Raises:
      DeepLabError: it is none of these, or the weights cannot be downloaded.
    """
    check_reference(reference)
    path = as_path(reference).expanduser()
    if str(reference) in list_pretrained() and not is_model(path):
        return _converted(find_pretrained(str(reference)), reporter or LoggingReporter())
    # Reading a directory without a model reports what is missing.
    return path


def check_reference(reference: str | Path) -> None:
    """Checks, without a download, that a reference names a model; see `locate`.

    Raises:
      DeepLabError: it is neither a directory nor the name of pretrained weights.
    """
    path = as_path(reference).expanduser()
    if path.is_dir() or str(reference) in list_pretrained():
        return
    if path.is_file():
        raise DeepLabError(
            f"{path} is a file and no model; deeplab-jax convert makes a model directory of it"
        )
    raise DeepLabError(
        f"{reference} is no model: neither a directory nor the name of pretrained weights; "
        f"{_hint(reference)}legal: a workdir of `train`, a model directory, or a name that "
        "deeplab-jax models lists"
    )


def convert_source(
    reference: str | Path,
    architecture: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    prefer_averages: bool = True,
    reporter: Reporter | None = None,
) -> "Conversion":
    """Converts published weights wherever they are.

    Args:
      reference: path of a file, of a checkpoint (without the endings of its files), of a directory
        or archive with one of them; or a name that `list_pretrained` tells.
      architecture: what it holds, where that should be overruled.
      overrides: keywords of `create_model` that should be overruled.
      class_names: of the outputs.
      prefer_averages: of a TensorFlow checkpoint: take the averages over the training where it has
        them.
      reporter: hears of downloads; by default the logger does.

    Raises:
      DeepLabError: there is no such thing, or it cannot be converted.
    """
    path = Path(reference).expanduser()
    if is_there(path):
        with unpacked(path) as file:
            return pretrained.convert(
                file, architecture, overrides, class_names, prefer_averages=prefer_averages
            )
    if str(reference) not in list_pretrained():
        raise DeepLabError(
            f"{reference}: there is no such file, nor pretrained weights of that name; "
            f"{_hint(reference)}legal: a file of weights, the beginning of a checkpoint's files, "
            "a directory or archive of one, or a name that deeplab-jax models lists"
        )
    entry = find_pretrained(str(reference))
    return _convert_entry(
        entry, reporter or LoggingReporter(), architecture, overrides, class_names, prefer_averages
    )


def _convert_entry(
    entry: PretrainedModel,
    reporter: Reporter,
    architecture: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    prefer_averages: bool = True,
) -> "Conversion":
    published = fetch(entry, reporter)
    reporter.message(f"converting {published.name}; its licence: {entry.licence}")
    with unpacked(published, published.parent, entry.member) as file:
        conversion = pretrained.convert(
            file,
            architecture or entry.architecture or None,
            {**entry.overrides, **(overrides or {})},
            class_names or entry.class_names,
            entry.provenance,
            prefer_averages,
        )
    description = conversion.description
    size = description.inference_size or entry.inference_size
    return dataclasses.replace(
        conversion, description=dataclasses.replace(description, inference_size=size)
    )


def _converted(entry: PretrainedModel, reporter: Reporter) -> Path:
    """Returns the directory of the converted weights; converts them where there is none."""
    directory = cache_directory() / "models" / f"{entry.name}-{entry.version}"
    if is_model(directory):
        return directory
    with locked(directory, reporter):
        if not is_model(directory):
            conversion = _convert_entry(entry, reporter)
            checkpointing.write_model(directory, conversion.description, conversion.variables)
    return directory


def _hint(reference: str | Path) -> str:
    nearest = nearest_names(str(reference), list_pretrained())
    return f"did you mean {nearest[0]!r}? " if nearest else ""
