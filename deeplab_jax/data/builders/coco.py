"""A user's own dataset in COCO format.

Source of the format: cocodataset.org/#format-data. pycocotools draws the objects.
"""

import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.annotations import AnnotationsBuilder, Layer, ListedImage, add_image
from deeplab_jax.data.builders.exports import (
    checked_points,
    declared_size,
    entries,
    image_name,
    is_class_name,
    named_split,
)
from deeplab_jax.data.descriptors import parse_json, read_text
from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_extra
from deeplab_jax.listing import absolute

# Names of annotation files. If such files exist, other JSON files are ignored, because COCO's
# captions and keypoints have the same form.
PREFERRED = re.compile(r"instances.*|_annotations\.coco")
# Characters of compressed run lengths. Each encodes six bits; the highest bit is set if the number
# continues in the next character.
RUN_CHARACTERS, CONTINUED = range(48, 112), 0x20
# CVAT's export "COCO 1.0" marks all brush masks as crowds.
CROWD_REMEDY = (
    "for brush masks of CVAT, export 'Segmentation mask 1.1', and use `prepare cvat`; for other "
    "objects that are not crowds, set iscrowd to 0"
)


class CocoObject(NamedTuple):
    """Annotated object in an image.

    Attributes:
      identity: `id` of the annotation.
      name: name of the category; None for a crowd (`iscrowd`).
      segmentation: `segmentation` of the annotation: polygons or run lengths.
    """

    identity: object
    name: str | None
    segmentation: object


class Coco(AnnotationsBuilder):
    """Draws the objects in COCO files; smaller objects cover larger ones.

    Crowds (`iscrowd`) are void, and all objects cover them. The name of the annotation file or of
    its directory determines the split. The classes are background, then the categories in the order
    of their ids.
    """

    LAYOUT = (
        "a coco source contains images and JSON files such as annotations/instances_train.json or "
        "train/_annotations.coco.json"
    )

    def __init__(self, *, annotations: str | Path | None = None, **kwargs: Any) -> None:
        """Reads the annotations.

        Args:
          annotations: annotation file (default: all files `instances*.json` and
            `_annotations.coco.json` in the source or, if there are none, all JSON files).
          **kwargs: arguments of `AnnotationsBuilder`.

        Raises:
          DeepLabError: a file is missing or not in COCO format, or pycocotools is not installed.
        """
        self._masks = import_extra("pycocotools.mask", "annotations", "a COCO file")
        self._annotations = absolute(annotations) if annotations else None
        # Number of annotations that are crowds (True), and of others (False).
        self._number: Counter[bool] = Counter()
        super().__init__(**kwargs)

    def read_annotations(
        self,
    ) -> tuple[dict[str | None, dict[str, ListedImage]], Iterable[str]]:
        found: dict[str | None, dict[str, ListedImage]] = {}
        names: list[str] = []
        for path in self._files():
            names += self._read(path, found)
        if self._number[True] and not self._number[False]:
            raise DeepLabError(
                f"{self.source}: all {self._number[True]} annotations are crowds (iscrowd), which "
                f"become void, so no pixel would have a class other than background; {CROWD_REMEDY}"
            )
        return found, names

    def layers(self, listed: ListedImage, size: tuple[int, int]) -> Iterator[Layer]:
        for thing in listed.shapes:
            try:
                mask = draw_object(self._masks, thing.segmentation, size)
            except DeepLabError as error:
                raise DeepLabError(f"annotation {thing.identity}: {error}") from None
            depth = np.inf if thing.name is None else float(np.count_nonzero(mask))
            yield Layer(thing.name, mask, depth)

    def notes(self) -> list[str]:
        crowds = self._number[True]
        note = (
            f"{crowds} of {self._number.total()} annotations are crowds (iscrowd), which become "
            f"void; {CROWD_REMEDY}"
        )
        return super().notes() + [note] * bool(crowds)

    def _files(self) -> list[Path]:
        if self._annotations:
            return [self._annotations]
        files = self.json_files()
        return [path for path in files if PREFERRED.fullmatch(path.stem)] or files

    def _read(self, path: Path, found: dict[str | None, dict[str, ListedImage]]) -> list[str]:
        """Reads an annotation file, and adds its images to `found`.

        Args:
          path: annotation file.
          found: images by split, then by id (the split is None for images without a split).

        Returns:
          Names of the categories in the file, in the order of their ids.
        """
        content = parse_json(read_text(path, "annotations"), path)
        images, annotations, categories = (
            entries(content, key, path) for key in ("images", "annotations", "categories")
        )
        inside = path.is_relative_to(self.source)
        parts = path.relative_to(self.source).parts[:-1] if inside else ()
        split = named_split([*parts, *re.split("[^a-zA-Z]+", path.stem)])
        names = _names(categories, path)
        objects: dict[object, list[CocoObject]] = {
            _identity(image, "image", path): [] for image in images
        }
        if len(objects) < len(images):
            raise DeepLabError(f"{path}: two images have the same id; give each a different id")
        faults: dict[object, str] = _repeated_files(images, path)
        for number, thing in enumerate(annotations, 1):
            identity, image = _identity(thing, "annotation", path), thing.get("image_id")
            place = f"{path}: annotation {identity}"
            if not isinstance(image, int | str) or image not in objects:
                shown = reprlib.repr(image)
                fault = (
                    f"{place}: its image_id {shown} is not an id in `images`; add the image, or "
                    "remove the annotation"
                )
                missing = ListedImage(path, None, (), path, fault)
                add_image(found, split, f"annotations/{number}", missing)
                continue
            category = thing.get("category_id")
            if not isinstance(category, int) or category not in names:
                faults[image] = (
                    f"{place}: its category_id {reprlib.repr(category)} is not an id in "
                    f"`categories`; legal: {', '.join(map(str, names))}"
                )
                continue
            name = None if thing.get("iscrowd") else names[category]
            self._number[name is None] += 1
            objects[image].append(CocoObject(identity, name, thing.get("segmentation")))
        stems = Counter(image_name(_file_name(image)) for image in images)
        for image in images:
            fault = faults.get(image["id"], "")
            listed = self._listed(image, objects[image["id"]], path, split, fault)
            # Files such as a.jpg and a.png differ only in their suffixes.
            stem = image_name(_file_name(image))
            name = stem if stem and stems[stem] == 1 else f"{stem or 'images'}/{image['id']}"
            add_image(found, split, name, listed)
        return [names[category] for category in sorted(names)]

    def _listed(
        self,
        image: dict[str, Any],
        objects: Sequence[CocoObject],
        path: Path,
        split: str | None,
        fault: str,
    ) -> ListedImage:
        try:
            size = declared_size(image.get("height"), image.get("width"))
            name = image.get("file_name")
            file = self.find_image(name if isinstance(name, str) else "", path, split)
        except DeepLabError as error:
            fault = fault or f"{path}: image {image['id']}: {error}"
            return ListedImage(path, None, (), path, fault)
        return ListedImage(file, size, objects, path, fault)


def draw_object(masks: ModuleType, segmentation: object, size: tuple[int, int]) -> np.ndarray:
    """Draws the mask of an object with pycocotools.

    Args:
      masks: the module `pycocotools.mask`.
      segmentation: list of polygons, each [x, y, x, y, …] in pixels; one such polygon; or run
        lengths in COCO's format, compressed or not.
      size: (height, width) of the image.

    Returns:
      bool [height, width].

    Raises:
      DeepLabError: the segmentation is damaged, or is for an image of another size.
    """
    if isinstance(segmentation, list) and segmentation:
        # MyVision and early releases of supervision write a single polygon without the outer list.
        nested = segmentation if isinstance(segmentation[0], list) else [segmentation]
        polygons = [_corners(polygon, size) for polygon in nested]
        runs = masks.merge(masks.frPyObjects(polygons, *size))
    elif isinstance(segmentation, dict):
        runs = _checked_runs(masks, segmentation, size)
    else:
        raise DeepLabError(
            "the annotation has no outline (perhaps only a box); draw an outline, or remove the "
            "annotation"
        )
    return masks.decode(runs).astype(bool)


def _corners(polygon: object, size: tuple[int, int]) -> np.ndarray:
    # Three corners are six numbers.
    numbers = polygon if isinstance(polygon, list) else []
    if len(numbers) < 6 or len(numbers) % 2:
        raise DeepLabError(
            f"a polygon has {len(numbers)} numbers, but must consist of pairs x, y for at least 3 "
            "corners; draw the polygon again, or remove it"
        )
    return checked_points(list(zip(numbers[::2], numbers[1::2], strict=True)), size, 3).ravel()


def _checked_runs(masks: ModuleType, runs: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Checks the run lengths of a mask, and returns them in the form that pycocotools requires.

    pycocotools does not check run lengths.

    Args:
      masks: the module `pycocotools.mask`.
      runs: `segmentation` of a COCO annotation, with the keys `counts` and `size`.
      size: (height, width) of the image.

    Raises:
      DeepLabError: the run lengths are damaged, or are for an image of another size.
    """
    if runs.get("size") != list(size):
        raise DeepLabError(
            f"the run lengths have the size {runs.get('size')} (height, width), but the image is "
            f"{list(size)}; export the file again"
        )
    counts = runs.get("counts")
    if isinstance(counts, str):
        encoded = counts.encode()
        if not {*encoded} <= {*RUN_CHARACTERS} or (encoded and encoded[-1] - 48 & CONTINUED):
            raise DeepLabError("the compressed run lengths are damaged; export the file again")
        counts = _uncompressed(encoded)
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise DeepLabError(
            "the run lengths must be a list of integers or a compressed string; export the file "
            "again"
        )
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise DeepLabError(
            f"the run lengths have {sum(counts)} pixels in total, but the image has "
            f"{size[0] * size[1]}, or a run length is negative; export the file again"
        )
    return masks.frPyObjects({"size": list(size), "counts": counts}, *size)


def _uncompressed(encoded: bytes) -> list[int]:
    """Decodes compressed run lengths in the same way as the C function `rleFrString` of COCO's API.

    Returns:
      Numbers of successive pixels outside, inside, outside, … the object, in column-major order.
    """
    counts: list[int] = []
    number = bits = 0
    for byte in encoded:
        digit = byte - RUN_CHARACTERS[0]
        number |= (digit & 0x1F) << bits
        bits += 5
        if digit & CONTINUED:
            continue
        # The highest of the five bits is the sign.
        number -= (digit & 0x10) << 1 << (bits - 5)
        # From the fourth number on, differences to the last but one are stored.
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = bits = 0
    return counts


def _names(categories: Sequence[dict[str, Any]], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in categories:
        identity, name = category.get("id"), category.get("name")
        if type(identity) is not int or not is_class_name(name):
            raise DeepLabError(
                f"{path}: the category {name!r} with the id {identity!r} is invalid; its id must "
                "be an integer, and its name must be one line of text"
            )
        names[identity] = name
    if len(names) < len(categories):
        raise DeepLabError(f"{path}: two categories have the same id; give each a different id")
    return names


def _repeated_files(images: Sequence[dict[str, Any]], path: Path) -> dict[object, str]:
    """Returns the fault of each image whose `file_name` another image has, too, by id.

    Such entries may be one image, or images of different directories, so their objects are not
    drawn into one label.
    """
    uses = Counter(map(_file_name, images))
    return {
        image["id"]: (
            f"{path}: image {image['id']}: {uses[name]} entries in `images` have the file_name "
            f"{name!r}; give them one entry if they are the same image, or different paths"
        )
        for image in images
        if (name := _file_name(image)) and uses[name] > 1
    }


def _file_name(image: dict[str, Any]) -> str:
    """Returns the path of an image with forward slashes and without `.`; "" if there is none."""
    name = str(image.get("file_name") or "")
    return name and PurePosixPath(PureWindowsPath(name).as_posix()).as_posix()


def _identity(entry: dict[str, Any], kind: str, path: Path) -> int | str:
    identity = entry.get("id")
    if not isinstance(identity, int | str):
        raise DeepLabError(
            f"{path}: the id {identity!r} of an {kind} must be an integer or a string"
        )
    return identity
