"""Class names, palettes, color maps and label ids of datasets."""

import dataclasses
import importlib.resources
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.labels import MAX_CLASSES, VOID_COLOR, check_class_names, void_label
from deeplab_jax.listing import absolute

Color = tuple[int, int, int]


def parse_text(text: str, origin: str) -> dict[str, Color]:
    """Parses lines of the form `r g b name`, and returns {class name: RGB}; skips empty lines.

    Raises:
      DeepLabError: a line does not have this form, or a name occurs twice. The message begins with
        `origin`.
    """
    colors: dict[str, Color] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        *channels, name = line.split(maxsplit=3)
        numbers = [int(word) if word.isdecimal() else word for word in channels]
        color = _checked_color(numbers, f"{origin}, line {number}")
        if colors.setdefault(name.strip(), color) is not color:
            raise DeepLabError(
                f"{origin}, line {number}: the class {name.strip()!r} already has a color; give "
                "each class one color, and repaint masks that show it in several colors"
            )
    return colors


def read_color_map(path: Path) -> dict[str, Color]:
    """Reads {class name: RGB} from JSON `{"name": [r, g, b]}` or from text lines `r g b name`.

    Raises:
      DeepLabError: the file does not exist, does not have one of these forms, contains no class, or
        contains a class twice or two classes of the same color.
    """
    text = read_text(path, "color map")
    if path.suffix.lower() == ".json":
        entries = parse_json(text, path, unique=True)
        if not isinstance(entries, dict):
            raise DeepLabError(
                f'{path}: a color map in JSON must have the form {{"name": [r, g, b], …}}'
            )
        colors = {name: _checked_color(color, str(path)) for name, color in entries.items()}
    else:
        colors = parse_text(text, str(path))
    if not colors or len(set(colors.values())) < len(colors):
        raise DeepLabError(
            f"{path}: the color map contains no class, or two classes with the same color; give at "
            "least one class, and each class a different color"
        )
    return colors


def read_text(path: Path, kind: str) -> str:
    """Reads a text file in UTF-8.

    Args:
      path: file to read.
      kind: expected content, for the error message.

    Raises:
      DeepLabError: the file does not exist or is not a text file.
    """
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise DeepLabError(f"{path}: cannot read the {kind}: no such file") from error
    except OSError as error:
        reason = "it is a directory" if path.is_dir() else error.strerror
        raise DeepLabError(f"{path}: cannot read the {kind}: {reason}; give a text file") from error
    except UnicodeDecodeError as error:
        raise DeepLabError(f"{path}: cannot read the {kind}: not a text file in UTF-8") from error


def parse_json(text: str, path: Path, unique: bool = False) -> object:
    """Parses the text of a JSON file.

    Args:
      text: content of the file.
      path: path of the file, for errors.
      unique: whether a repeated key in an object is an error; otherwise its last value is used.

    Raises:
      DeepLabError: the text is not JSON, or `unique` is True and a key occurs twice. The message
        names the file.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys if unique else None)
    except (RecursionError, ValueError) as error:
        raise DeepLabError(f"{path}: invalid JSON ({error})") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the name {twice!r} occurs twice; each name must occur once")
    return found


def _checked_color(channels: Any, origin: str) -> Color:
    if isinstance(channels, list) and len(channels) == 3:
        red, green, blue = channels
        if all(isinstance(channel, int) and 0 <= channel <= 255 for channel in channels):
            return red, green, blue
    raise DeepLabError(
        f"{origin}: a color must be three integers 0..255 (red, green, blue), as in "
        '`128 0 64 car`, or in JSON {"car": [128, 0, 64]}'
    )


def packed(colors: np.ndarray) -> np.ndarray:
    """Converts uint8 [..., 3] RGB to int32 [...], 65536 · R + 256 · G + B."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


@dataclasses.dataclass(frozen=True)
class Bands:
    """Bands (channels) of the images of a dataset.

    Attributes:
      count: number of bands.
      dtype: dtype of the pixels, `uint8` or `uint16`.
      chosen: bands to read from each file, numbered from 1, in this order; None: all bands.
      mean, std: mean and standard deviation of each band over all pixels of the first split,
        usually train, including void pixels; () if unknown. The standard deviation of a constant
        band is set to 1.
    """

    count: int
    dtype: str
    chosen: tuple[int, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def are_rgb(self) -> bool:
        """Returns whether the images are 8-bit RGB."""
        return (self.count, self.dtype) == (3, "uint8")

    @property
    def are_pictures(self) -> bool:
        """Returns whether every image file, gray images included, is converted to 8-bit RGB.

        The result is False if the user selected three bands as R, G and B, because these are read
        without conversion.
        """
        return self.are_rgb and self.chosen is None

    def __str__(self) -> str:
        if self.are_rgb:
            return "three bands of uint8 (RGB)"
        return f"{self.count} {'band' if self.count == 1 else 'bands'} of {self.dtype}"


RGB = Bands(3, "uint8")


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """Classes and bands of a dataset.

    Attributes:
      name: name of the dataset.
      class_names: name of each class; label i is the class at position i.
      palette: RGB 0..255 of each class.
      intensity_range: values of 16-bit and float images that become 0 and 255. None: the smallest
        range that contains 0 and all pixel values of the image.
      bands: bands of the images (default: 8-bit RGB).
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]
    intensity_range: tuple[float, float] | None = None
    bands: Bands = RGB

    @property
    def num_classes(self) -> int:
        """Number of classes, without void."""
        return len(self.class_names)


def bit_interleaved_palette(num_colors: int) -> tuple[Color, ...]:
    """Returns the first `num_colors` colors of PASCAL VOC's color map, RGB 0..255.

    The lowest three bits of an index are the highest bits of R, G and B, the next three bits are
    the second-highest, and so on.

    Source: `VOClabelcolormap` of the PASCAL VOC development kit.
    """
    index = np.arange(num_colors)[:, None]
    channel = np.arange(3)[None, :]
    colors = np.zeros((num_colors, 3), np.int64)
    for triple in range(8):
        colors |= (index >> (3 * triple + channel) & 1) << (7 - triple)
    return tuple((red, green, blue) for red, green, blue in colors.tolist())


def describe(
    name: str, class_names: Sequence[str], palette: Sequence[Color] | None = None
) -> Descriptor:
    """Returns the descriptor of a dataset of 8-bit RGB images.

    Args:
      name: name of the dataset.
      class_names: names of the classes in label order.
      palette: RGB color of each class, 0..255 (default: PASCAL VOC's color map). Color 511 of that
        map, (224, 224, 224), is skipped, because it is the color of void.
    """
    if not palette:
        free = (
            color for color in bit_interleaved_palette(len(class_names) + 1) if color != VOID_COLOR
        )
        palette = list(free)[: len(class_names)]
    colors = tuple((red, green, blue) for red, green, blue in palette)
    return Descriptor(name, tuple(class_names), colors)


def _packaged(name: str) -> Descriptor:
    """Returns the descriptor of a dataset from `classes/{name}.txt` in this package."""
    text = importlib.resources.files(__package__).joinpath(f"classes/{name}.txt").read_text("utf-8")
    colors = parse_text(text, origin=f"{name}.txt")
    return describe(name, list(colors), list(colors.values()))


VOC = _packaged("voc_segmentation")
CAMVID = _packaged("camvid")
CITYSCAPES = _packaged("cityscapes")
# Class 0, "void", contains everything except the 150 classes; ADE20K's benchmark does not score it.
# Its pixels have the void label, so output 0 of a network is never a target.
ADE20K = _packaged("ade20k")
COCO_STUFF = _packaged("coco_stuff")
# The background, then the classes in the order of 59_labels.txt of the PASCAL-Context authors.
PASCAL_CONTEXT = _packaged("pascal_context")
PASCAL_PERSON_PART = _packaged("pascal_person_part")
SHAPES = _packaged("shapes")

# The labelIds of Cityscapes' 19 evaluated classes, in trainId order; all other ids are void.
# Source: cityscapesScripts, helpers/labels.py.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# COCO-Stuff ids that occur in no image. The label maps of COCO-Stuff contain id - 1.
# Source: labels.md of nightrome/cocostuff.
COCO_STUFF_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)

# Names that mean void in a color map, unless the class file lists them as classes.
VOID_NAMES = ("void", "ignore", "unlabeled", "unlabelled")
# Name of void pixels in label files of labelme, which assigns the index -1 to it.
LABELME_VOID = "__ignore__"

# Files with class names that are read from the source folder if no other file is given.
CLASS_FILES = ("classes.txt", "classes.json")


def check_intensity_range(intensity_range: tuple[float, float] | None) -> None:
    """Checks the range of pixel values that is mapped to 0..255; None is legal.

    Raises:
      DeepLabError: the values are not finite, or the first is not below the second.
    """
    if intensity_range and not -math.inf < intensity_range[0] < intensity_range[1] < math.inf:
        low, high = intensity_range
        raise DeepLabError(
            f"intensity_range={low:g},{high:g} is illegal; the numbers must be finite, and the "
            "first number must be below the second"
        )


def find_class_file(source: Path, given: str | Path | None) -> Path | None:
    """Returns the path of the file of class names; None if no file is given or found.

    The file is `given` or, by default, `classes.txt` or `classes.json` in the folder `source`.
    """
    found = [source / name for name in CLASS_FILES if (source / name).is_file()]
    return absolute(given) if given else next(iter(found), None)


def folder_classes(
    source: Path, class_file: str | Path | None, color_map: str | Path | None
) -> tuple[Descriptor, dict[Color, int] | None]:
    """Returns the classes of a folder of images and, for color masks, the label of each color.

    Args:
      source: folder of the images and masks.
      class_file: file of class names, as text with one name per line or as JSON (default:
        `classes.txt` or `classes.json` in the source, else the names of the color map).
      color_map: file with the color of each class, as text lines `r g b name` or as JSON; None if
        the masks contain class indices.

    Raises:
      DeepLabError: there are fewer than two class names, the class file and the color map contain
        different classes, or there is no color map and a class has labelme's name of void pixels.
    """
    names_path = find_class_file(source, class_file)
    names = read_class_names(names_path) if names_path else None
    if color_map:
        path = as_path(color_map)
        painted = _painted_classes(names, path)
        check_class_names(painted[0].class_names, names_path or path)
        return painted
    if names is None:
        raise DeepLabError(
            f"{source}: no class names; give a file with one class name per line "
            f"(--classes, or {CLASS_FILES[0]} in this folder)"
        )
    if LABELME_VOID in names:
        raise DeepLabError(
            f"{names_path}: {LABELME_VOID!r} is labelme's name of void pixels, whose value in "
            f"masks is {void_label(len(names))}; remove this line, so that the classes after it "
            "have the indices that masks of labelme contain"
        )
    check_class_names(names, names_path)
    return describe("folder", names), None


def read_class_names(path: Path) -> tuple[str, ...]:
    """Reads class names in label order.

    Args:
      path: text file with one name per line, or JSON: a list, or {"name": index}.

    Raises:
      DeepLabError: the file is missing or has another form, such as a CSV table of several
        columns; a name occurs twice; or an index is missing.
    """
    text = read_text(path, "class names")
    if path.suffix.lower() == ".json":
        names = _from_json(parse_json(text, path, unique=True), path)
    else:
        names = list(filter(None, map(str.strip, text.splitlines())))
    if path.suffix.lower() == ".csv" and any("," in name for name in names):
        raise DeepLabError(
            f"{path}: a table (CSV) cannot be read as class names; give a text file with one class "
            "name per line in label order, without a header and without further columns"
        )
    if not 0 < len(names) <= MAX_CLASSES or len(set(names)) < len(names):
        raise DeepLabError(
            f"{path}: the file has {len(names)} class names, {len(set(names))} of them different; "
            f"it must contain 1 to {MAX_CLASSES} names, all different"
        )
    return tuple(names)


def _painted_classes(
    names: tuple[str, ...] | None, path: Path
) -> tuple[Descriptor, dict[Color, int]]:
    colors = read_color_map(path)
    names = names or tuple(name for name in colors if name.lower() not in VOID_NAMES)
    missing = [name for name in names if name not in colors]
    if missing:
        raise DeepLabError(f"{path}: the class {missing[0]!r} has no color; add one")
    descriptor = describe("folder", names, [colors[name] for name in names])
    return descriptor, {color: _label(name, names, path) for name, color in colors.items()}


def _label(name: str, names: tuple[str, ...], path: Path) -> int:
    if name in names:
        return names.index(name)
    if name.lower() in VOID_NAMES:
        return void_label(len(names))
    raise DeepLabError(
        f"{path}: {name!r} is not one of the classes ({', '.join(names)}); correct the name, or "
        f"replace it by {VOID_NAMES[0]!r} if its color means void"
    )


def _from_json(entries: object, path: Path) -> list[str]:
    if isinstance(entries, dict) and sorted(entries.values(), key=str) == sorted(
        range(len(entries)), key=str
    ):
        entries = sorted(entries, key=entries.__getitem__)
    if not isinstance(entries, list) or not all(isinstance(name, str) for name in entries):
        raise DeepLabError(
            f'{path}: class names in JSON must be a list of names or {{"name": index}} with the '
            "indices 0, 1, … without gaps"
        )
    return entries
