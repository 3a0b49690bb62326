"""Files and directories that are either whole or not there."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from deeplab_jax.errors import DeepLabError


def as_path(place: str | os.PathLike) -> Path:
    """Returns a path on this machine or, of gs://BUCKET/… and s3://BUCKET/…, one in a bucket.

    Both have the same methods; those in buckets need the package gcsfs or s3fs.
    """
    return epath.Path(place) if "://" in str(place) else Path(place)


def is_local(path: Path) -> bool:
    """Whether a path is on this machine."""
    return "://" not in str(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """Returns a path as Orbax wants it: from the root, or of a bucket."""
    return epath.Path(path if "://" in str(path) else Path(path).absolute())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place when the block ends well.

    Folders above are made. When the block fails the temporary file goes and `path` stays as it was.
    The suffix is that of `path`, for libraries that choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent if is_local(path) else None
    with tempfile.TemporaryDirectory(dir=beside, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if is_local(path):
            os.replace(temporary, path)
        else:
            # Objects in a bucket appear whole.
            path.write_bytes(temporary.read_bytes())


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Gives a temporary directory beside `path`, which becomes `path` when the block ends well.

    Raises:
      DeepLabError: there is something at `path` already, other than an empty directory.
    """
    check_new_directory(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        temporary.mkdir()
        yield temporary
        # An empty directory in its place is replaced.
        os.replace(temporary, path)


def check_new_directory(path: Path) -> None:
    """Checks that a directory is empty or not there.

    Raises:
      DeepLabError: there is something.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DeepLabError(f"{path} exists and is not empty; give another directory, or remove it")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def cache_directory() -> Path:
    """Returns where downloads and whatever can be made again are kept: DEEPLAB_CACHE says."""
    default = Path.home() / ".cache" / "deeplab_jax"
    return Path(os.environ.get("DEEPLAB_CACHE") or default).expanduser()


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
