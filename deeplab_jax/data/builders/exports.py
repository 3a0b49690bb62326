"""Functions that several builders use to read the exports of annotation tools."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

import numpy as np

from deeplab_jax.data.builders.folder_files import SPLIT_NAMES
from deeplab_jax.data.descriptors import (
    LABELME_VOID,
    VOID_NAMES,
    Descriptor,
    describe,
    read_class_names,
)
from deeplab_jax.data.prepared import INFO_FILE
from deeplab_jax.errors import DeepLabError, shortened
from deeplab_jax.labels import check_class_names
from deeplab_jax.listing import absolute, is_hidden, unpack_zip

# Names of labels whose pixels are void, unless the user lists them as classes.
IGNORED_NAMES = (LABELME_VOID, *VOID_NAMES)
# Names of the background class, to which all pixels without a shape belong.
BACKGROUND_NAMES = ("background", "_background_")
# Maximum number of files that an error lists.
SHOWN_FILES = 5


def annotation_classes(
    name: str, found: Iterable[str], file: Path | None, source: Path
) -> tuple[Descriptor, dict[str, int], str]:
    """Determines the classes of a dataset from annotations.

    If no class has a name in `BACKGROUND_NAMES`, a class `background` is added as class 0.

    Args:
      name: name of the dataset.
      found: class names in the annotation files, in the order of the labels. Names in
        `IGNORED_NAMES` are omitted, and background is moved to the front.
      file: file of class names, which replace the names in `found`; None if there is no such file.
      source: directory of the dataset, for error messages.

    Returns:
      Tuple with three elements:

      * descriptor of the dataset;
      * {class name: label};
      * name of the background class, spelled as in the list of classes.

    Raises:
      DeepLabError: background is the only class, or `file` is invalid.
    """
    if file:
        names = [name for name in read_class_names(file) if name != IGNORED_NAMES[0]]
    else:
        known = [name for name in dict.fromkeys(found) if name.lower() not in IGNORED_NAMES]
        names = sorted(known, key=lambda name: name.lower() not in BACKGROUND_NAMES)
    listed = [name for name in names if name.lower() in BACKGROUND_NAMES]
    if not listed:
        names = [BACKGROUND_NAMES[0], *names]
    check_class_names(names, file or source)
    labels = {name: label for label, name in enumerate(names)}
    return describe(name, names), labels, (listed or names)[0]


def named_split(parts: Sequence[str]) -> str | None:
    """Returns the split (train, val or test) that a part of a path names, or None.

    For example, the result for ("export", "valid", "images") is `val`. If several parts name a
    split, the last one is used.
    """
    named = [SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES]
    return named[-1] if named else None


def uppermost(files: Sequence[Path]) -> Path:
    """Returns the file that is nearest to the root of the directory tree.

    Args:
      files: files that each describe one export, such as all files `labelmap.txt` of a source.

    Raises:
      DeepLabError: several files have the same smallest depth.
    """
    least = min(len(path.parts) for path in files)
    found = [path for path in files if len(path.parts) == least]
    if len(found) > 1:
        raise DeepLabError(
            f"the source contains {len(found)} exports, described by "
            f"{shortened(found, SHOWN_FILES)}; prepare each of them separately, with its "
            "directory as --source, merge them in the annotation tool, or, if they describe the "
            "same files, keep only one of them"
        )
    return found[0]


def image_name(file_name: str) -> str:
    """Returns the id of an image: its path without extension, drive, leading slash and `..`."""
    path = PurePosixPath(PureWindowsPath(file_name).as_posix())
    path = path.with_suffix("") if path.name else path
    parts = [part for part in path.parts if part not in ("/", "..")]
    has_drive = bool(parts) and parts[0].endswith(":")
    return "/".join(parts[has_drive:])


def is_class_name(value: object) -> TypeGuard[str]:
    """Returns whether a value is a legal name of a class: one line of text that is not empty."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def entries(content: object, key: str, path: Path) -> list[dict[str, Any]]:
    """Returns the list of JSON objects under a key of a parsed JSON file.

    Args:
      content: parsed content of the file.
      key: key of the list.
      path: path of the file, for errors.

    Raises:
      DeepLabError: there is no list of objects under the key.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DeepLabError(
            f"{path}: the key {key!r} is missing or is not a list of objects; export the file "
            "again, or remove it from the source"
        )
    return found


def declared_size(height: object, width: object) -> tuple[int, int] | None:
    """Checks the height and width in an annotation file.

    Returns:
      (height, width); None if one of them is missing.

    Raises:
      DeepLabError: the height or the width is not a positive integer.
    """
    if height is None or width is None:
        return None
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise DeepLabError(
            f"image height {height!r} and width {width!r} must be positive integers; export the "
            "file again"
        )
    return height, width


def checked_points(points: Any, size: tuple[int, int], least: int) -> np.ndarray:
    """Checks the points of a shape and returns them as an array.

    Args:
      points: pairs (x, y) in pixels.
      size: (height, width) of the image.
      least: minimum number of points.

    Returns:
      Points, float64 [number, 2], x and y.

    Raises:
      DeepLabError: there are too few points, they are not pairs of numbers, or a point is outside
        the image by more than the height or width of the image.
    """
    try:
        pairs = np.array(points, np.float64).reshape(len(points), 2)
    except (OverflowError, TypeError, ValueError):
        raise DeepLabError(
            "the points of the shape must be pairs of numbers x, y; draw the shape again"
        ) from None
    if len(pairs) < least:
        raise DeepLabError(
            f"the shape has {len(pairs)} points, but at least {least} are required; draw the shape "
            "again"
        )
    extent = np.array(size[::-1])
    # NaN fails both comparisons, so it is outside.
    inside = ((pairs >= -extent) & (pairs <= 2 * extent)).all(axis=1)
    if not inside.all():
        x, y = pairs[~inside][0]
        raise DeepLabError(
            f"the point (x, y) = ({x:g}, {y:g}) is far outside the image of {size[0]}x{size[1]} "
            "(height x width); give coordinates in pixels of this image"
        )
    return pairs


def unpacked(source: str | Path, owner: object) -> Path:
    """Returns the directory of a source; unpacks the source first if it is a zip archive.

    Args:
      source: directory or zip archive.
      owner: the unpacked files are removed when this object is garbage-collected.

    Raises:
      DeepLabError: the source does not exist, or the archive is damaged, too large or unsafe.
    """
    path = absolute(source)
    if not path.is_file():
        return given_directory(path)
    temporary = tempfile.mkdtemp(prefix="deeplab_jax-")
    weakref.finalize(owner, shutil.rmtree, temporary, ignore_errors=True)
    # Error messages contain this path, and thereby the name of the archive.
    directory = Path(temporary) / path.name
    directory.mkdir()
    unpack_zip(path, directory)
    # Many archives contain a single directory with all files.
    inside = [child for child in directory.iterdir() if not is_hidden(child, directory)]
    alone = len(inside) == 1 and inside[0].is_dir() and not named_split([inside[0].name])
    return inside[0] if alone else directory


def in_prepared(path: Path) -> bool:
    """Returns whether a file belongs to a prepared dataset, if `data_dir` is inside the source."""
    return (path.parent / INFO_FILE).is_file()


def given_directory(directory: str | Path) -> Path:
    """Returns the absolute path of a directory.

    Raises:
      DeepLabError: the directory does not exist.
    """
    path = absolute(directory)
    if not path.is_dir():
        raise DeepLabError(f"{path}: no such directory")
    return path
