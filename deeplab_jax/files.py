"""Listing and writing of files: what counts as a file, and atomic replacement."""

import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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


PROGRAM_CACHE, PROGRAM_SUFFIX = "DEEPLAB_PROGRAM_CACHE", ".stablehlo"


def program_directory() -> Path | None:
    """Returns the directory of traced programs, $DEEPLAB_PROGRAM_CACHE; None: they are not kept."""
    directory = os.environ.get(PROGRAM_CACHE)
    return Path(directory) if directory else None


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# What is taken from a directory.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Written by macOS, Windows and network storage beside a user's files; all else begins with a dot.
SYSTEM_NAMES = ("__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db")
HIDDEN = "hidden"


class Listing(NamedTuple):
    """The files below a directory.

    Attributes:
      images: sorted by path.
      left_out: number of other files by reason: HIDDEN, or their suffix, such as ".txt".
    """

    images: list[Path]
    left_out: Counter[str]


def is_hidden(path: Path, below: Path) -> bool:
    """Returns whether a path is hidden, or lies in a hidden directory, below a directory.

    Hidden are names that begin with a dot (`.ipynb_checkpoints`, `._photo.jpg`, `.DS_Store`) and
    SYSTEM_NAMES.
    """
    parts = path.relative_to(below).parts
    return any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in parts)


def visible_files(directory: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Yields the files anywhere below a directory that are not hidden and have a suffix, sorted."""
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in suffixes and not is_hidden(path, directory) and path.is_file():
            yield path


def list_images(directory: Path) -> Listing:
    """Returns the images anywhere below a directory, and what else there is."""
    images: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        if is_hidden(path, directory):
            left_out[HIDDEN] += 1
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(path)
        else:
            left_out[path.suffix.lower() or "without suffix"] += 1
    return Listing(images, left_out)
