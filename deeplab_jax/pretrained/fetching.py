"""The published files in the cache: those put there by hand, and those downloaded on first use."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import cache_directory
from deeplab_jax.pretrained.catalog import PretrainedModel
from deeplab_jax.pretrained.checksums import verify
from deeplab_jax.pretrained.download import Patience, download
from deeplab_jax.pretrained.hub import download_from_hub
from deeplab_jax.reporter import Reporter

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
