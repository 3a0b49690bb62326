"""Parts that the exports of all annotation tools share: archive, classes, splits, values."""

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
# Names of the class of the pixels that no shape covers.
BACKGROUND_NAMES = ("background", "_background_")
# Directories, or words in the names of annotation files, that define the splits.
SPLIT_NAMES = {**{split: split for split in SPLITS}, **OTHER_SPLIT_NAMES}


def annotation_classes(
    name: str, found: Iterable[str], file: Path | None, source: Path
) -> tuple[Descriptor, dict[str, int], str]:
    """Returns the classes of annotations, their labels by name, and the name of the background.

    Args:
      name: name of the dataset.
      found: names in the annotation files, in label order; background is put in front.
      file: file of class names, which decides; None without one.
      source: the source, for errors.

    Raises:
      DeepLabError: there is no class besides background.
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
    """Returns the split that the last part of a path with such a name defines; None for none."""
    named = [SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES]
    return named[-1] if named else None


def image_name(file_name: str) -> str:
    """Returns the id of an image: its path without suffix, and without parts that lead out."""
    path = PurePosixPath(PureWindowsPath(file_name).as_posix())
    path = path.with_suffix("") if path.name else path
    return "/".join(part for part in path.parts if part not in ("/", "..") and ":" not in part)


def is_class_name(value: object) -> TypeGuard[str]:
    """Returns whether a value is the name of a class: one line of text that is not empty."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def entries(content: object, key: str, path: Path) -> list[dict]:
    """Returns a list of objects in a JSON file.

    Raises:
      DeepLabError: the file does not hold such a list.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DeepLabError(
            f"{path}: it has no list of objects {key!r}; export it again, or move it away"
        )
    return found


def declared_size(height: object, width: object) -> tuple[int, int] | None:
    """Returns the (height, width) of an annotation file; None if it declares none.

    Raises:
      DeepLabError: they are no positive integers.
    """
    if height is None or width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DeepLabError(f"height {height!r} and width {width!r} must be positive integers")
    return height, width


def checked_points(points: Any, size: tuple[int, int], least: int) -> np.ndarray:
    """Returns the points of a shape.

    Args:
      points: pairs of x and y in pixels.
      size: (height, width) of the image.
      least: minimum number of points.

    Returns:
      float64 [number, 2], x and y.

    Raises:
      DeepLabError: there are fewer points, they are no pairs of numbers, or one is more than the
        image's size outside of it.
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
    """Returns a directory, or the one into which a zip archive was unpacked.

    Args:
      source: directory or zip archive.
      owner: object with which the unpacked files are removed.

    Raises:
      DeepLabError: it is neither, or the archive is damaged, too large or unsafe.
    """
    path = Path(os.path.normpath(Path(source).expanduser()))
    if not path.is_file():
        return given_directory(path)
    temporary = tempfile.mkdtemp(prefix="deeplab_jax-")
    weakref.finalize(owner, shutil.rmtree, temporary, ignore_errors=True)
    # Errors about a member then name the archive.
    directory = Path(temporary) / path.name
    directory.mkdir()
    unpack_zip(path, directory)
    # Many archives hold one directory with everything.
    inside = [child for child in directory.iterdir() if not is_hidden(child, directory)]
    alone = len(inside) == 1 and inside[0].is_dir() and not named_split([inside[0].name])
    return inside[0] if alone else directory


def given_directory(directory: str | Path) -> Path:
    """Returns a user's directory.

    Raises:
      DeepLabError: it does not exist.
    """
    path = Path(os.path.normpath(Path(directory).expanduser()))
    if not path.is_dir():
        raise DeepLabError(f"{path}: no such directory")
    return path
