"""Location of published, converted and trained models on disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from deeplab_jax import checkpointing, pretrained
from deeplab_jax.checkpointing import is_model
from deeplab_jax.errors import DeepLabError, nearest_names
from deeplab_jax.files import as_path, cache_directory
from deeplab_jax.lazy import quiet_logger
from deeplab_jax.pretrained.archives import is_there, unpacked
from deeplab_jax.pretrained.download import Patience, by_hand, download, verify
from deeplab_jax.pretrained.published_models import PretrainedModel, list_pretrained
from deeplab_jax.reporter import LoggingReporter, Reporter

if TYPE_CHECKING:
    from deeplab_jax.pretrained.conversion import Conversion


# Environment of huggingface_hub, read at its import; values of the user take precedence.
SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
CONFIGURATION = "config.json"


def download_from_hub(entry: PretrainedModel, cache: Path, target: Path) -> Path:
    """Downloads a file of a repository on Hugging Face, and the configuration beside it.

    Args:
      entry: catalog entry.
      cache: cache directory of huggingface_hub.
      target: path where the user can put the file by hand, for the error message.

    Returns:
      Path in the cache.

    Raises:
      DeepLabError: there is no network, or no such file.
    """
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    from huggingface_hub import hf_hub_download

    try:
        # The error reports all that the library warns of.
        with quiet_logger("huggingface_hub"):
            for name in (CONFIGURATION, entry.hub_file):
                found = hf_hub_download(entry.hub_repository, name, cache_dir=cache, token=False)
    except Exception as error:
        # Errors of the hub and of its network library, and ValueError when offline.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise by_hand(entry.address, target, reason) from error
    return Path(found)


# Timeout in seconds for another process that downloads or converts the same model.
LOCK_TIMEOUT = 2 * 60 * 60.0


def fetch(entry: PretrainedModel, reporter: Reporter, patience: Patience | None = None) -> Path:
    """Returns the verified file of a catalog entry, and downloads it if necessary.

    Args:
      entry: catalog entry.
      reporter: receives progress events.
      patience: limits of the download.

    Raises:
      DeepLabError: the file cannot be downloaded (the message names where to put it by hand), or is
        not the published one.
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
    """Locks a file or directory against other processes until the block ends.

    Raises:
      DeepLabError: another process holds the lock for hours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        reporter.message(f"another process uses {path.name}; waiting for it")
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
    """Returns the model directory or workdir of a model.

    Args:
      reference: path of a model directory or workdir, or a name of `list_pretrained`, whose weights
        are downloaded and converted on first use.
      reporter: receives progress events of downloads (default: the logger).

    Raises:
      DeepLabError: there is no such model, or its weights cannot be downloaded.
    """
    check_reference(reference)
    path = as_path(reference).expanduser()
    if str(reference) in list_pretrained() and not is_model(path):
        return _converted(list_pretrained()[str(reference)], reporter or LoggingReporter())
    # Reading a directory without a model reports what is missing.
    return path


def check_reference(reference: str | Path) -> None:
    """Checks that a reference names a model, without a download; see `locate`.

    Raises:
      DeepLabError: the reference is neither a directory nor the name of pretrained weights.
    """
    path = as_path(reference).expanduser()
    if path.is_dir() or str(reference) in list_pretrained():
        return
    if path.is_file():
        raise DeepLabError(
            f"{path} is a file, not a model; deeplab-jax convert makes a model directory of it"
        )
    raise DeepLabError(
        f"{reference} is not a model: neither a directory nor the name of pretrained weights; "
        f"{_hint(reference)}expected a workdir of `train`, a model directory, or a name that "
        "deeplab-jax models lists"
    )


def convert_source(
    reference: str | Path, reporter: Reporter | None = None, **options: Any
) -> "Conversion":
    """Converts published weights from a path or a name.

    Args:
      reference: path of a file, prefix of a TensorFlow checkpoint, directory or archive with one of
        these, or a name that `list_pretrained` returns.
      reporter: receives progress events of downloads (default: the logger).
      **options: `architecture`, `overrides`, `class_names` and `prefer_averages` of `convert`.

    Raises:
      DeepLabError: there are no such weights, or they cannot be converted.
    """
    path = Path(reference).expanduser()
    if is_there(path):
        with unpacked(path) as file:
            return pretrained.convert(file, **options)
    if str(reference) not in list_pretrained():
        raise DeepLabError(
            f"{reference}: there is no such file, nor pretrained weights of that name; "
            f"{_hint(reference)}legal: a file of weights, the prefix of a TensorFlow checkpoint, "
            "a directory or archive of one, or a name that deeplab-jax models lists"
        )
    entry = list_pretrained()[str(reference)]
    return _convert_entry(entry, reporter or LoggingReporter(), **options)


def _convert_entry(entry: PretrainedModel, reporter: Reporter, **options: Any) -> "Conversion":
    published = fetch(entry, reporter)
    reporter.message(f"converting {published.name}; its licence: {entry.licence}")
    with unpacked(published, published.parent, entry.member) as file:
        return pretrained.convert(file, entry=entry, **options)


def _converted(entry: PretrainedModel, reporter: Reporter) -> Path:
    """Returns the directory of the converted weights, and converts them if necessary."""
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
