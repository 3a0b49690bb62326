"""Copies prepared datasets from buckets into the cache directory on this machine.

The copies are required because ArrayRecord files can be read from local paths only.
"""

import base64
import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import cache_directory, replacing_directory
from deeplab_jax.reporter import Reporter

# Name of the file in each copy that lists the copied files.
RECORD = ".copied.json"


class Stored(NamedTuple):
    """File in a bucket.

    Attributes:
      size: size in bytes.
      md5: MD5 of the content as hexadecimal digits; empty if the storage service does not report
        it.
      tag: text that changes when the content changes, such as the ETag in S3; empty if the storage
        service reports none.
    """

    size: int
    md5: str
    tag: str


def local_copy(directory: Path, reporter: Reporter | None = None) -> Path:
    """Returns a local copy of a prepared dataset in a bucket.

    The copy is stored below `datasets/` in the cache directory. An existing copy is reused if the
    bucket still has the same files, with the same sizes and checksums (or ETags). While one process
    copies a dataset, other processes on this machine wait.

    Args:
      directory: directory of a version of the dataset, such as gs://BUCKET/data/voc/1.0.0.
      reporter: receives a message before copying.

    Raises:
      DeepLabError: the package for access to the bucket is not installed, the cache directory
        cannot be written or its file system does not support locks, the disk has too little space,
        or the size or checksum of a copied file differs from that in the bucket.
    """
    system, root = _file_system(directory)
    files = _list_files(system, root)
    target = cache_directory() / "datasets" / str(directory).replace("://", "/")
    with _locked(target):
        if _is_current(target, files):
            return target
        size = sum(stored.size for stored in files.values())
        free = shutil.disk_usage(target.parent).free
        if size > free:
            raise DeepLabError(
                f"the size of {directory} is {size / 1e9:.1f} GB, but the disk of {target.parent} "
                f"has only {free / 1e9:.1f} GB free; set the environment variable DEEPLAB_CACHE to "
                "a directory on a larger disk"
            )
        if reporter is not None:
            reporter.message(f"copying {directory} ({size / 1e6:.0f} MB) to {target}")
        with replacing_directory(target, overwrite=True) as temporary:
            for name, stored in files.items():
                _copy_file(system, f"{root}/{name}", temporary / name, stored)
            (temporary / RECORD).write_text(json.dumps(files, indent=2))
    return target


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Locks a copy against other processes until the block ends; waits for their copying.

    Raises:
      DeepLabError: the parent directory of `target` cannot be written, or its file system does not
        support locks.
    """
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DeepLabError(
            f"{target.parent} cannot be written ({error.strerror or error}); change its "
            "permissions, or set DEEPLAB_CACHE to another directory"
        ) from error
    except NotImplementedError as error:
        # Releases of filelock raise it, for example on Lustre without the mount option flock.
        raise DeepLabError(
            f"{target.parent} is in a file system that does not support locks; set DEEPLAB_CACHE "
            "to a directory in another file system, such as a local disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _file_system(directory: Path) -> tuple[Any, str]:
    """Returns the fsspec file system of a bucket, and the path of a directory in this system."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(str(directory))
    except ImportError as error:
        raise DeepLabError(f"{directory} cannot be copied: {error}") from error


def _list_files(system: Any, root: str) -> dict[str, Stored]:
    """Returns the files below the path `root` in a bucket, by their paths relative to `root`."""
    found = system.find(root, detail=True)
    return {
        path.removeprefix(root).lstrip("/"): _stored(facts)
        for path, facts in sorted(found.items())
        # Mounted buckets and web consoles represent folders by empty objects with such names.
        if not path.endswith("/")
    }


def _stored(facts: dict[str, Any]) -> Stored:
    """Returns size, MD5 and tag of a file from the facts that fsspec reports.

    The tag is the CRC-32C in Google Cloud Storage, and the ETag in S3. Google Cloud Storage also
    reports the MD5, unless the object was composed of several uploads. In S3, the MD5 is empty: the
    ETag is often equal to the MD5, but not for objects that were uploaded in several parts, or
    encrypted with SSE-KMS or SSE-C.
    """
    md5 = base64.b64decode(facts.get("md5Hash", "")).hex()
    return Stored(int(facts["size"]), md5, str(facts.get("ETag") or facts.get("crc32c", "")))


def _is_current(target: Path, files: dict[str, Stored]) -> bool:
    """Returns whether the directory `target` contains a complete and current copy of a dataset.

    Args:
      target: directory of the copy.
      files: files of the dataset in the bucket, by path relative to the directory of the dataset.
    """
    try:
        recorded = json.loads((target / RECORD).read_text())
        sizes = {name: (target / name).stat().st_size for name in files}
    except (OSError, ValueError):
        return False
    listed = {name: list(stored) for name, stored in files.items()}
    return recorded == listed and sizes == {name: stored.size for name, stored in files.items()}


def _copy_file(system: Any, source: str, target: Path, stored: Stored) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    system.get_file(source, str(target))
    size = target.stat().st_size
    if size != stored.size:
        raise DeepLabError(
            f"{source}: the copy has {size:,} bytes instead of {stored.size:,}; run the command "
            "again"
        )
    with target.open("rb") as file:
        if stored.md5 and hashlib.file_digest(file, "md5").hexdigest() != stored.md5:
            raise DeepLabError(f"{source}: the copy has a wrong checksum; run the command again")
