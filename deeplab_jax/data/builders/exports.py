"""Functions for the exports of all annotation tools: archives, classes, splits, checked values."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

import numpy as np

from deeplab_jax.data.builders.pairing import OTHER_SPLIT_NAMES, SPLITS
from deeplab_jax.data.descriptors import (
    VOID_NAMES,
    Descriptor,
    check_several_classes,
    describe,
    read_class_names,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import is_hidden, unpack_zip

# Names of labels whose pixels are void, unless the user lists them as classes. labelme's own
# converter gives the first of them the value -1.
IGNORED_NAMES = ("__ignore__", *VOID_NAMES)
# Names of the background class, which consists of the pixels that no shape covers.
BACKGROUND_NAMES = ("background", "_background_")
# Splits by the names of directories, or by words in the names of annotation files.
SPLIT_NAMES = {**{split: split for split in SPLITS}, **OTHER_SPLIT_NAMES}


def annotation_classes(
    name: str, found: Iterable[str], file: Path | None, source: Path
) -> tuple[Descriptor, dict[str, int], str]:
    """Determines the classes of a dataset from annotations.

    Args:
      name: name of the dataset.
      found: class names in the annotation files, in the order of the labels; background is moved to
        the front.
      file: file of class names, which replaces those in the annotation files; None: no such file.
      source: source, for error messages.

    Returns:
      Descriptor of the dataset, label of each class by name, and name of the background class.

    Raises:
      DeepLabError: background is the only class.
    """
    if file:
        names = [name for name in read_class_names(file) if name != IGNORED_NAMES[0]]
    else:
        known = [name for name in dict.fromkeys(found) if name.lower() not in IGNORED_NAMES]
        names = sorted(known, key=lambda name: name.lower() not in BACKGROUND_NAMES)
    listed = [name for name in names if name.lower() in BACKGROUND_NAMES]
    if not listed:
        names = [BACKGROUND_NAMES[0], *names]
    check_several_classes(names, file or source)
    labels = {name: label for label, name in enumerate(names)}
    return describe(name, names), labels, (listed or names)[0]


def named_split(parts: Sequence[str]) -> str | None:
    """Returns the split named by the last part of a path that is the name of a split, or None."""
    named = [SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES]
    return named[-1] if named else None


def image_name(file_name: str) -> str:
    """Returns the id of an image: its path without suffix, drive, root and `..`."""
    path = PurePosixPath(PureWindowsPath(file_name).as_posix())
    path = path.with_suffix("") if path.name else path
    return "/".join(part for part in path.parts if part not in ("/", "..") and ":" not in part)


def is_class_name(value: object) -> TypeGuard[str]:
    """Returns whether a value is the name of a class: one line of text that is not empty."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def entries(content: object, key: str, path: Path) -> list[dict[str, Any]]:
    """Returns the list of objects under a key of a JSON file.

    Raises:
      DeepLabError: there is no list of objects under the key.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DeepLabError(
            f"{path}: it has no list of objects {key!r}; export it again, or move it away"
        )
    return found


def declared_size(height: object, width: object) -> tuple[int, int] | None:
    """Checks the height and width in an annotation file.

    Returns:
      (height, width); None if one of them is missing.

    Raises:
      DeepLabError: they are not positive integers.
    """
    if height is None or width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DeepLabError(f"height {height!r} and width {width!r} must be positive integers")
    return height, width


def checked_points(points: Any, size: tuple[int, int], least: int) -> np.ndarray:
    """Returns the points of a shape.

    Args:
      points: pairs (x, y) in pixels.
      size: (height, width) of the image.
      least: minimum number of points.

    Returns:
      Points, float64 [number, 2], x and y.

    Raises:
      DeepLabError: there are too few points, they are not pairs of numbers, or a point is farther
        from the image than the size of the image.
    """
    try:
        pairs = np.array(points, np.float64).reshape(len(points), 2)
    except (OverflowError, TypeError, ValueError):
        raise DeepLabError("its points must be pairs of numbers x, y; draw it again") from None
    if len(pairs) < least:
        raise DeepLabError(f"{len(pairs)} points, at least {least} are needed; draw it again")
    extent = np.array(size[::-1])
    # Not a number is not inside either.
    inside = ((pairs >= -extent) & (pairs <= 2 * extent)).all(axis=1)
    if not inside.all():
        x, y = pairs[~inside][0]
        raise DeepLabError(
            f"the point ({x:g}, {y:g}) is far outside of the image of {size[0]}x{size[1]} (height "
            "x width); coordinates are pixels of this image"
        )
    return pairs


def unpacked(source: str | Path, owner: object) -> Path:
    """Returns the directory of a source; unpacks it first if it is a zip archive.

    Args:
      source: directory or zip archive.
      owner: object; when it is garbage collected, the unpacked files are removed.

    Raises:
      DeepLabError: the source does not exist, or the archive is damaged, too large or unsafe.
    """
    path = Path(os.path.normpath(Path(source).expanduser()))
    if not path.is_file():
        return given_directory(path)
    temporary = tempfile.mkdtemp(prefix="deeplab_jax-")
    weakref.finalize(owner, shutil.rmtree, temporary, ignore_errors=True)
    # The name of the archive is part of the path, so that error messages contain it.
    directory = Path(temporary) / path.name
    directory.mkdir()
    unpack_zip(path, directory)
    # Many archives contain a single directory with all files.
    inside = [child for child in directory.iterdir() if not is_hidden(child, directory)]
    alone = len(inside) == 1 and inside[0].is_dir() and not named_split([inside[0].name])
    return inside[0] if alone else directory


def given_directory(directory: str | Path) -> Path:
    """Returns the path of a directory that the user has given.

    Raises:
      DeepLabError: the directory does not exist.
    """
    path = Path(os.path.normpath(Path(directory).expanduser()))
    if not path.is_dir():
        raise DeepLabError(f"{path}: no such directory")
    return path
