"""Datasets from Label Studio's exports "Brush labels to PNG" and JSON.

Source of the format: github.com/HumanSignal/label-studio-converter, brush.py.
"""

import contextlib
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.annotations import AnnotationsBuilder, Layer, ListedImage, add_image
from deeplab_jax.data.builders.exports import image_name
from deeplab_jax.data.codecs import encoded_size
from deeplab_jax.data.descriptors import parse_json, read_text
from deeplab_jax.data.images import read_bytes
from deeplab_jax.data.masks import open_mask
from deeplab_jax.errors import DeepLabError
from deeplab_jax.listing import IMAGE_SUFFIXES, absolute, visible_files

# Names of masks: task-ID-annotation-ID-by-ANNOTATOR-TAG-CLASS-NUMBER.png
MASK_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-([^-]*)-(.+)-\d+")
# Prefix that Label Studio adds to the names of uploaded files.
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")
# Pixels of at least this opacity, 0..255, belong to a brush stroke.
OPAQUE = 128


class BrushMask(NamedTuple):
    """Mask file of one class in one annotation.

    Attributes:
      path: path of the PNG.
      annotation: id of the annotation.
      name: name of the class.
    """

    path: Path
    annotation: str
    name: str


class LabelStudio(AnnotationsBuilder):
    """Combines the masks of each image into a label; smaller masks cover larger ones.

    Label Studio calls an image a task. The JSON export contains the path of the image of each task.
    The export does not divide the images into splits. Instead, a hash of the name of each image
    determines whether it belongs to train or val.
    """

    LAYOUT = (
        "a label_studio source contains the PNGs of the export 'Brush labels to PNG', the JSON "
        "export (or --annotations=FILE) and the images (or --images=DIR)"
    )

    def __init__(self, *, annotations: str | Path | None = None, **kwargs: Any) -> None:
        """Reads the annotations.

        Args:
          annotations: JSON export (default: the only JSON file in the source).
          **kwargs: arguments of `AnnotationsBuilder`.

        Raises:
          DeepLabError: the JSON export is missing, or is not a list of tasks.
        """
        self._annotations = absolute(annotations) if annotations else None
        self._without_masks = 0
        super().__init__(**kwargs)

    def read_annotations(
        self,
    ) -> tuple[dict[str | None, dict[str, ListedImage]], Iterable[str]]:
        path = self._annotations or self._json_file()
        tasks = parse_json(read_text(path, "JSON export"), path)
        if not isinstance(tasks, list) or not all(
            isinstance(task, dict) and type(task.get("id")) is int for task in tasks
        ):
            raise DeepLabError(
                f"{path}: the file is not a list of tasks with integer ids; export the project as "
                "JSON"
            )
        masks = self._masks({tag for task in tasks for tag in _tags(task)})
        names = {mask.name for of_task in masks.values() for mask in of_task}
        found: dict[str | None, dict[str, ListedImage]] = {}
        for task in tasks:
            of_task = masks.pop(str(task["id"]), [])
            if not of_task and not _is_background(task):
                self._without_masks += 1
                continue
            listed = self._listed(task, of_task, path)
            identity = f"task-{task['id']}" if listed.fault else image_name(self._relative(listed))
            if earlier := found.get(None, {}).get(identity):
                fault = (
                    f"{path}: task {task['id']}: the image {listed.path} has the same name as "
                    f"{earlier.path} of another task; rename the image, or delete one of the tasks"
                )
                identity, listed = f"task-{task['id']}", listed._replace(fault=fault)
            add_image(found, None, identity, listed)
        for number, of_task in masks.items():
            fault = (
                f"{of_task[0].path}: task {number} is not in {path}; export the project as JSON "
                "again, or remove this mask"
            )
            missing = ListedImage(of_task[0].path, None, (), path, fault)
            add_image(found, None, f"task-{number}", missing)
        return found, sorted(names)

    def layers(self, listed: ListedImage, size: tuple[int, int]) -> Iterator[Layer]:
        for path, _, name in listed.shapes:
            opacity = open_mask(path).values()
            if opacity.shape != size:
                raise DeepLabError(
                    f"{path}: the mask is {opacity.shape[0]}x{opacity.shape[1]} (height x width), "
                    f"but the image is {size[0]}x{size[1]}; they must have the same size"
                )
            mask = opacity >= OPAQUE
            yield Layer(name, mask, float(np.count_nonzero(mask)))

    def notes(self) -> list[str]:
        skipped = f"{self._without_masks} tasks without a brush mask are left out"
        return super().notes() + [skipped] * bool(self._without_masks)

    def is_image(self, path: Path) -> bool:
        return not MASK_NAME.fullmatch(path.stem)

    def _json_file(self) -> Path:
        files = self.json_files()
        if len(files) != 1:
            raise DeepLabError(
                f"{self.source} contains {len(files)} JSON files; give the JSON export of the "
                "project with --annotations=FILE"
            )
        return files[0]

    def _masks(self, tags: set[str]) -> dict[str, list[BrushMask]]:
        """Finds the mask files in the source, and returns {task id: masks of the task}.

        Args:
          tags: names of the labeling tags in the JSON export. They are part of the file names of
            masks, and are removed from the names to obtain the class names.
        """
        masks = defaultdict(list)
        for path in visible_files(self.source, (".png",)):
            if match := MASK_NAME.fullmatch(path.stem):
                task, annotation, _, rest = match.groups()
                # Names of tags may contain hyphens.
                known = [tag for tag in sorted(tags, key=len) if rest.startswith(f"{tag}-")]
                tag = known[-1] if known else rest.partition("-")[0]
                name = rest.removeprefix(f"{tag}-")
                masks[task].append(BrushMask(path, annotation, name))
        return masks

    def _listed(self, task: dict[str, Any], masks: list[BrushMask], path: Path) -> ListedImage:
        place = masks[0].path if masks else path
        if len(numbers := sorted({mask.annotation for mask in masks})) > 1:
            fault = (
                f"{place}: task {task['id']} has several annotations ({', '.join(numbers)}); "
                "keep the masks of only one"
            )
            return ListedImage(place, None, masks, path, fault)
        try:
            image = self._image_of(task, path)
            size = encoded_size(read_bytes(place)[0]) if masks else None
        except DeepLabError as error:
            return ListedImage(place, None, masks, path, f"{path}: task {task['id']}: {error}")
        # On a damaged mask, Pillow raises exceptions of many types. Drawing reports the error.
        except Exception:
            size = None
        return ListedImage(image, size, masks, path)

    def _image_of(self, task: dict[str, Any], path: Path) -> Path:
        """Returns the path of the image of a task.

        Args:
          task: task in the JSON export.
          path: path of the JSON export.

        Raises:
          DeepLabError: no image matches a path in the task, or several images have the file name.
        """
        values = task["data"] if isinstance(task.get("data"), dict) else task
        names = list(filter(None, map(_file_name, [task.get("file_upload"), *values.values()])))
        last = [PurePosixPath(name).name for name in names]
        without_prefix = [UPLOAD_PREFIX.sub("", name, count=1) for name in last]
        for name in dict.fromkeys((*names, *last, *without_prefix)):
            with contextlib.suppress(DeepLabError):
                return self.find_image(name, path)
        return self.find_image(next(iter(names), ""), path)

    def _relative(self, listed: ListedImage) -> str:
        inside = listed.path.is_relative_to(self.image_directory)
        top = self.image_directory if inside else self.source
        return listed.path.relative_to(top).as_posix()


def _file_name(value: object) -> str:
    """Returns the path of the image file to which a value of the JSON export refers.

    Args:
      value: any value of the JSON export, for example a path or a URL of an image.

    Returns:
      The path without leading slash; "" if the value does not refer to an image file.
    """
    if not isinstance(value, str):
        return ""
    try:
        url = urllib.parse.urlsplit(value)
    except ValueError:
        return ""
    # URLs of local files have the form /data/local-files/?d=PATH.
    path = urllib.parse.parse_qs(url.query).get("d", [urllib.parse.unquote(url.path)])[0]
    return path.lstrip("/") if path.lower().endswith(IMAGE_SUFFIXES) else ""


def _results(task: dict[str, Any]) -> Iterator[list[Any]]:
    """Yields the list of results, such as brush strokes, of each annotation of a task.

    Cancelled annotations are left out.
    """
    annotations = task.get("annotations")
    for annotation in annotations if isinstance(annotations, list) else ():
        fields = annotation if isinstance(annotation, dict) else {}
        # An annotator who skips a task leaves a cancelled annotation, which labels nothing.
        if fields.get("was_cancelled"):
            continue
        result = fields.get("result")
        yield result if isinstance(result, list) else []


def _tags(task: dict[str, Any]) -> set[str]:
    """Returns the names (`from_name`) of the labeling tags in the annotations of a task."""
    results = (result for of_one in _results(task) for result in of_one if isinstance(result, dict))
    return {tag for result in results if isinstance(tag := result.get("from_name"), str)}


def _is_background(task: dict[str, Any]) -> bool:
    """Returns whether a task has annotations that are not cancelled, all of which are empty.

    All pixels of the image of such a task are background.
    """
    results = list(_results(task))
    return bool(results) and not any(results)
