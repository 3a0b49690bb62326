"""Lists the image files below a directory; what systems hide beside them is no data."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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
    images, left_out = [], Counter()
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
