"""Location of the variables of a published, converted or trained model on disk."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from deeplab_jax import checkpointing, pretrained
from deeplab_jax.checkpointing import is_model
from deeplab_jax.errors import DeepLabError, nearest_names
from deeplab_jax.files import as_path, cache_directory
from deeplab_jax.pretrained.archives import is_there, unpacked
from deeplab_jax.pretrained.download import Patience, by_hand, download, verify
from deeplab_jax.pretrained.published_models import (
    PretrainedModel,
    find_pretrained,
    list_pretrained,
)
from deeplab_jax.reporter import LoggingReporter, Reporter

if TYPE_CHECKING:
    from deeplab_jax.pretrained.conversion import Conversion


# Read when the library is imported; the user's own values win.
SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
CONFIGURATION = "config.json"


def download_from_hub(entry: PretrainedModel, cache: Path, target: Path) -> Path:
    """Downloads a file of a repository on Hugging Face, or finds it in the cache.

    The repository's configuration comes with it and lies beside it.

    Args:
      entry: of the catalog.
      cache: directory that huggingface_hub keeps in its own way.
      target: where the error says that the file may be put by hand.

    Returns:
      Path in the cache.

    Raises:
      DeepLabError: there is no network, or no such file.
    """
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    from huggingface_hub import hf_hub_download

    try:
        with _quiet():
            for name in (CONFIGURATION, entry.hub_file):
                found = hf_hub_download(entry.hub_repository, name, cache_dir=cache, token=False)
    except Exception as error:
        # Its own errors, those of whichever network library it uses, and ValueError when offline.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise by_hand(entry.address, target, reason) from error
    return Path(found)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the library's warnings of every attempt: the error says it all."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# Seconds to wait for another process that downloads or converts the same.
LOCK_TIMEOUT = 2 * 60 * 60.0


def fetch(entry: PretrainedModel, reporter: Reporter, patience: Patience | None = None) -> Path:
    """Returns the verified file of a catalog entry; downloads it where it is not there yet.

    Args:
      entry: of the catalog.
      reporter: receives progress events.
      patience: when a download is given up.

    Raises:
      DeepLabError: it cannot be downloaded (says where to put it by hand), or is not the published
        one.
    """
    folder = cache_directory() / "pretrained"
    target = folder / entry.file_name
    with locked(target, reporter):
        if target.exists():
            try:
                verify(target, entry.checksums)
            except DeepLabError as error:
                raise DeepLabError(f"{target}: {error}; remove or replace it") from error
            return target
        if entry.url:
            return download(entry.url, target, entry.checksums, reporter, patience)
        reporter.message(f"downloading {entry.address}")
        found = download_from_hub(entry, folder / "hub", target)
        verify(found, entry.checksums)
        return found


@contextlib.contextmanager
def locked(path: Path, reporter: Reporter) -> Iterator[None]:
    """Keeps other processes from the same file or directory while the block runs.

    Raises:
      DeepLabError: another process holds it for hours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        reporter.message(f"another process is at {path.name}; waiting for it")
        try:
            lock.acquire(timeout=LOCK_TIMEOUT)
        except filelock.Timeout as error:
            hours = LOCK_TIMEOUT / 3600
            raise DeepLabError(f"another process has held {path} for {hours:.0f} hours") from error
    try:
        yield
    finally:
        lock.release()


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
        or archive with one of them; or a name that `list_pretrained` returns.
      architecture: what it holds, where that should be overruled.
      overrides: keywords of `create_model` that should be overruled.
      class_names: of the outputs.
      prefer_averages: of a TensorFlow checkpoint: take the averages over the training where it has
        them.
      reporter: receives the progress of downloads; by default the logger does.

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
