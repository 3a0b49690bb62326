"""Datasets in the YOLO format of Ultralytics with segmentation polygons.

Source of the format: docs.ultralytics.com/datasets/segment. Polygons are drawn as in the function
`polygon2mask` of Ultralytics.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import cv2
import numpy as np
import yaml

from deeplab_jax.data.builders.annotations import AnnotationsBuilder, Layer, ListedImage, add_image
from deeplab_jax.data.builders.exports import is_class_name, uppermost
from deeplab_jax.data.builders.folder_files import SPLIT_NAMES
from deeplab_jax.data.descriptors import CLASS_FILES, read_text
from deeplab_jax.errors import DeepLabError
from deeplab_jax.listing import list_images, visible_files

DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
IMAGES, LABELS = "images", "labels"
# Tolerance of Ultralytics for coordinates outside 0..1.
TOLERANCE = 0.01


class Yolo(AnnotationsBuilder):
    """Builder that draws the polygons in `labels/SPLIT/*.txt`; smaller polygons cover larger ones.

    `data.yaml` contains the directories of the splits and the names of the classes. Background is
    class 0, and the classes of `data.yaml` have the next indices. If an image has no label file,
    all its pixels are background. In `data.yaml`, the split val has the key `val`, `valid` or, in
    exports of CVAT, `Validation`.
    """

    LAYOUT = "a yolo source contains data.yaml, images/train/ and labels/train/ (and val)"

    def read_annotations(
        self,
    ) -> tuple[dict[str | None, dict[str, ListedImage]], Iterable[str]]:
        path = self._data_file()
        text = read_text(path, "description of the dataset")
        try:
            data = yaml.safe_load(text)
        # yaml raises ValueError for dates that do not exist.
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DeepLabError(f"{path}: invalid YAML ({reason})") from error
        if not isinstance(data, dict):
            raise DeepLabError(
                f"{path}: the file must be a mapping with `names` and the splits; {self.LAYOUT}"
            )
        self._names = _class_names(data, path)
        self._absent: list[str] = []
        found: dict[str | None, dict[str, ListedImage]] = {}
        for key in data:
            if split := SPLIT_NAMES.get(str(key).lower()):
                for images in self._image_paths(data, key, path):
                    self._add(found, split, *images)
        return found, self._names

    def notes(self) -> list[str]:
        return super().notes() + self._absent

    def layers(self, listed: ListedImage, size: tuple[int, int]) -> Iterator[Layer]:
        for number, line in listed.shapes:
            try:
                name, polygon = self._parsed(line, size)
            except DeepLabError as error:
                raise DeepLabError(f"line {number}: {error}") from None
            mask = np.zeros(size, np.uint8)
            cv2.fillPoly(mask, [polygon], 1)
            yield Layer(name, mask.astype(bool), float(np.count_nonzero(mask)))

    def _parsed(self, line: str, size: tuple[int, int]) -> tuple[str, np.ndarray]:
        """Parses a line of a label file.

        Returns:
          A pair:
          - name of the class.
          - corners of the polygon, int32 [number of corners, 2], x and y in pixels.

        Raises:
          DeepLabError: the line is not a class index followed by a polygon.
        """
        index, *numbers = line.split()
        if not index.isdecimal() or int(index) >= len(self._names):
            raise DeepLabError(
                f"the class {index!r} is illegal; legal: 0..{len(self._names) - 1}, the indices of "
                "`names` in data.yaml"
            )
        if len(numbers) == 4:
            raise DeepLabError(
                "the line contains a box, not a polygon; export the dataset for segmentation"
            )
        if len(numbers) < 6 or len(numbers) % 2:
            raise DeepLabError(
                f"the line has {len(numbers)} numbers after the class, but must contain pairs x, y "
                "for at least 3 corners of a polygon"
            )
        try:
            corners = np.array(numbers, np.float32)
        except ValueError as error:
            raise DeepLabError(f"{error}; coordinates must be numbers from 0 to 1") from None
        inside = (corners >= -TOLERANCE) & (corners <= 1 + TOLERANCE)
        if not inside.all():
            raise DeepLabError(
                f"the coordinate {corners[~inside][0]:g} is illegal; legal: 0..1, fractions of the "
                "image's width and height"
            )
        # Ultralytics truncates coordinates, too.
        scale = np.array(size[::-1], np.float32)
        return self._names[int(index)], (corners.reshape(-1, 2) * scale).astype(np.int32)

    def _data_file(self) -> Path:
        """Finds `data.yaml` or `dataset.yaml` in the source or in a subdirectory.

        Returns:
          Path of the file. If there are several, it is the one in the uppermost directory.

        Raises:
          DeepLabError: there is no such file, or there are several at the same depth.
        """
        files = [
            path
            for path in visible_files(self.source, (".yaml", ".yml"))
            if path.name.lower() in DATA_FILES
        ]
        if not files:
            raise DeepLabError(f"{self.source}: no {DATA_FILES[0]} in it; {self.LAYOUT}")
        return uppermost(files)

    def _image_paths(
        self, data: dict[str, Any], key: str, path: Path
    ) -> Iterator[tuple[Path, list[Path]]]:
        """Yields each place where a split has images, and the paths of the images at this place.

        A place is a directory, or a text file that lists images. A missing place of the split test
        is left out, because some exports name a directory of test images although there is none.

        Args:
          data: content of `data.yaml`.
          key: key of the split in `data`.
          path: path of `data.yaml`.
        """
        places = data.get(key) or []
        for place in places if isinstance(places, list) else [places]:
            if not isinstance(place, str):
                raise DeepLabError(
                    f"{path}: {key}: {place!r} must be a path, as in `train: images/train`"
                )
            top = data.get("path")
            roots = [path.parent / top] if isinstance(top, str) else []
            # Ultralytics ignores a leading ../, which Roboflow's exports contain.
            tried = [
                self.below(root / name)
                for root in (*roots, path.parent)
                for name in (place, place.removeprefix("../"))
            ]
            # os.path.exists returns False, without an error, for names that are not legal paths.
            legal = [one for one in tried if one and os.path.exists(one)]
            if legal:
                yield legal[0], self._images_in(legal[0])
            elif SPLIT_NAMES[key.lower()] == "test":
                self._absent.append(f"{path}: {key}: {place} does not exist and is left out")
            else:
                raise DeepLabError(
                    f"{path}: {key}: {place}: no such directory of images below {self.source}; "
                    "correct the path, as in `train: images/train`"
                )

    def _images_in(self, place: Path) -> list[Path]:
        """Returns the images in a directory, or in a text file that lists them."""
        if place.is_dir():
            return list_images(place).images
        lines = filter(None, map(str.strip, read_text(place, "list of images").splitlines()))
        return [self._listed_image(line, place) for line in lines]

    def _listed_image(self, line: str, place: Path) -> Path:
        """Returns the path of an image that a text file lists.

        If there is no image at the listed path, its outermost directories are removed, one
        after another, until there is an image. CVAT, for example, writes `data/` before all paths,
        and absolute paths are valid only on the machine on which the file was written.

        Args:
          line: listed path, absolute or relative to the directory of the text file.
          place: path of the text file.

        Returns:
          Path of the image. If no image is found, this is the listed path, provided that it is
          inside the source or the directory of the images. Reading the image then reports that
          the file is missing.

        Raises:
          DeepLabError: no image is found, and the listed path is outside both directories.
        """
        parts = PurePosixPath(PureWindowsPath(line).as_posix()).parts
        for first in range(len(parts)):
            if image := self.image_at(place.parent, str(PurePosixPath(*parts[first:]))):
                if first:
                    self._searched.add((self._label_file(image), image))
                return image
        if not (path := self.below(place.parent / line)):
            raise DeepLabError(
                f"{place}: the image {line} is not below {self.source}; correct the path"
            )
        return path

    def _add(
        self,
        found: dict[str | None, dict[str, ListedImage]],
        split: str,
        place: Path,
        images: list[Path],
    ) -> None:
        """Adds images to `found`, and label files without an image as damaged examples.

        Args:
          found: {split: {image id: image}}, changed in place.
          split: split of the images.
          place: directory of the images, or text file that lists them.
          images: paths of the images.
        """
        labels = set()
        for image in images:
            labels.add(label := self._label_file(image))
            base = place if place.is_dir() else self._top(image)
            identity = image.relative_to(base).with_suffix("").as_posix()
            try:
                text = read_text(label, "polygons") if label.exists() else ""
                lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
                listed = ListedImage(image, None, lines, label)
            except DeepLabError as error:
                listed = ListedImage(image, None, (), label, str(error))
            add_image(found, split, identity, listed)
        directory = self._label_file(place / "a.txt").parent
        strays = place.is_dir() and directory != place and visible_files(directory, (".txt",))
        for label in strays or ():
            if label not in labels and label.name not in CLASS_FILES:
                fault = (
                    f"{label}: no image with this name in {place}; add the image, or remove the "
                    "label file"
                )
                identity = f"{LABELS}/{label.relative_to(directory).with_suffix('').as_posix()}"
                add_image(found, split, identity, ListedImage(label, None, (), label, fault))

    def _label_file(self, image: Path) -> Path:
        """Returns the path of the label file of an image.

        It is the path of the image with the file extension `.txt`, and with `labels/` in place of
        the last `images/`.
        """
        top = self._top(image)
        parts = list(image.relative_to(top).parts)
        if IMAGES in parts[:-1]:
            parts[len(parts) - 1 - parts[::-1].index(IMAGES)] = LABELS
        return top.joinpath(*parts).with_suffix(".txt")

    def _top(self, image: Path) -> Path:
        """Returns the source if the image is inside it, else the directory given as `images`."""
        return self.source if image.is_relative_to(self.source) else self.image_directory


def _class_names(data: dict[str, Any], path: Path) -> list[str]:
    """Returns the names of the classes in the order of their indices in the label files."""
    names: Any = data.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not all(map(is_class_name, names)):
        raise DeepLabError(
            f"{path}: names must be a list of strings, or a mapping from 0, 1, … (without gaps) to "
            "strings; put names such as yes and no in quotes, because YAML reads them as booleans"
        )
    if data.get("nc", len(names)) != len(names) or len(set(names)) < len(names):
        raise DeepLabError(
            f"{path}: there are {len(names)} names, {len(set(names))} of them different, and nc is "
            f"{data.get('nc', 'not set')}; give a different name for each class, and set nc to "
            "the number of classes"
        )
    return names
