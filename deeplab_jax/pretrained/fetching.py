"""Published files in the cache, from their own hosts or the Hugging Face hub."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import cache_directory
from deeplab_jax.pretrained.catalog import PretrainedModel
from deeplab_jax.pretrained.download import Patience, by_hand, download, verify
from deeplab_jax.reporter import Reporter

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
      reporter: hears of progress.
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
