"""Base classes of the builders that draw labels from the shapes in annotation files."""

import abc
import dataclasses
import functools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.base import LoadedExample, SegmentationBuilder, in_splits
from deeplab_jax.data.builders.exports import (
    IGNORED_NAMES,
    annotation_classes,
    given_directory,
    in_prepared,
    named_split,
    unpacked,
)
from deeplab_jax.data.builders.findings import Facts
from deeplab_jax.data.descriptors import CLASS_FILES, check_intensity_range, find_class_file
from deeplab_jax.data.images import StorableImage, one_large_at_a_time, storable_image
from deeplab_jax.data.orientation import UPRIGHT, aligned_label, stored_size, turned
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.listing import absolute, composed, list_images, visible_files

# Remarks on an example, see `Facts.notes`.
NO_PIXEL = "annotation that covers no pixel"
NO_SHAPE = "image without annotations, all background"


class ListedImage(NamedTuple):
    """Image that an annotation file refers to.

    Attributes:
      path: path of the image file; path of the annotation file if there is no image file.
      size: (height, width) according to the annotation file; None if the file states no size.
      shapes: annotations of the image.
      origin: annotation file, for error messages; None: messages name only the image.
      fault: reason why the image cannot be stored in the prepared dataset; "" if it can.
    """

    path: Path
    size: tuple[int, int] | None
    shapes: Sequence[Any]
    origin: Path | None = None
    fault: str = ""


class DrawnBuilder(SegmentationBuilder):
    """Base class of builders; subclasses list the images with their shapes, and draw the shapes."""

    # Images by split and id, in the order in which they are stored.
    _images: dict[str, dict[str, ListedImage]]

    def __init__(self, *, masks_drawn_on: str | None = None, **kwargs: Any) -> None:
        """Creates a builder.

        Args:
          masks_drawn_on: for images with an EXIF orientation, whether shapes were drawn on the
            `displayed` or the `stored` image. It is used only if the size in the annotation file
            does not decide this, and the two cases give different labels. None: such an image is
            an error.
          **kwargs: arguments of `SegmentationBuilder`.
        """
        self._masks_drawn_on = masks_drawn_on
        super().__init__(**kwargs)

    @abc.abstractmethod
    def draw(
        self, listed: ListedImage, size: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Draws the label of an image.

        Args:
          listed: image and its shapes.
          size: (height, width) of the label.

        Returns:
          Label [height, width], and remarks for the user.

        Raises:
          DeepLabError: a shape is damaged or does not fit the size.
        """

    def read_storable_image(self, listed: ListedImage) -> StorableImage:
        """Reads the image of an annotation, and encodes it for the prepared dataset."""
        return storable_image(listed.path, self.descriptor.intensity_range)

    def image_ids(self) -> dict[str, Sequence[str]]:
        return {split: list(images) for split, images in self._images.items()}

    def load(self, split: str, image_id: str) -> LoadedExample:
        listed = self._images[split][image_id]
        if listed.fault:
            raise DeepLabError(listed.fault)
        with one_large_at_a_time(listed.path):
            image = self.read_storable_image(listed)
            try:
                label, notes = self._draw_upright(listed, image)
            except (DeepLabError, KeyError, TypeError, ValueError) as error:
                place = f" in {listed.origin}" if listed.origin else ""
                raise DeepLabError(
                    f"{listed.path}: the annotation of this image{place} cannot be drawn: {error}"
                ) from error
        return LoadedExample(image.encoded, label, Facts(image.digest, (*image.notes, *notes)))

    def _draw_upright(
        self, listed: ListedImage, image: StorableImage
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Draws the label for the displayed image, to which the EXIF orientation is applied.

        Returns:
          Label [height, width], and remarks for the user.

        Raises:
          DeepLabError: the size in the annotation file is not that of the image.
        """
        declared, stored = listed.size, stored_size(image.size, image.orientation)
        if declared not in (None, image.size, stored):
            raise DeepLabError(
                f"the annotations state {declared[0]}x{declared[1]} (height x width) as the size "
                f"of the image, but the image file is {image.size[0]}x{image.size[1]}; export "
                "images and annotations again"
            )
        if image.orientation == UPRIGHT:
            return self.draw(listed, image.size)
        as_displayed: tuple[np.ndarray | None, tuple[str, ...]] = (None, ())
        as_stored = as_displayed
        if declared in (None, image.size):
            as_displayed = self.draw(listed, image.size)
        if declared in (None, stored):
            label, notes = self.draw(listed, stored)
            as_stored = turned(label, image.orientation), notes
        label, drawn_on_stored = aligned_label(
            as_displayed[0],
            as_stored[0],
            orientation=image.orientation,
            drawn_on=self._masks_drawn_on,
            origin=listed.path,
        )
        return label, (as_stored if drawn_on_stored else as_displayed)[1]


class Layer(NamedTuple):
    """A shape that was drawn for one class.

    Attributes:
      name: name of the class; None for void.
      mask: bool [height, width], True at pixels of the shape.
      depth: order of overlapping shapes. A pixel belongs to the shape with the smallest depth, and
        among equal depths to the last of these shapes.
    """

    name: str | None
    mask: np.ndarray
    depth: float = 0.0


class AnnotationsBuilder(DrawnBuilder):
    """Base class of builders for annotation tools; subclasses read the files of one tool.

    The label is drawn from the shapes that `layers` yields. All other pixels are background.
    """

    # Description of the expected files, for error messages.
    LAYOUT: str
    # Pixels of images with an EXIF orientation on which users of the tool draw: `displayed`,
    # `stored`, or None if unknown.
    DRAWN_ON: str | None = None

    def __init__(
        self,
        *,
        source: str | Path,
        classes: str | Path | None = None,
        images: str | Path | None = None,
        intensity_range: tuple[float, float] | None = None,
        masks_drawn_on: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Reads the annotations.

        Args:
          source: directory or zip archive.
          classes: file of class names, as text with one name per line or as JSON (default:
            `classes.txt` or `classes.json` in the source, else the names in the annotation files).
          images: directory of the images (default: the source).
          intensity_range: (low, high), values of 16-bit and float images that become 0 and 255
            (default for each image: smallest range that contains 0 and all its pixel values).
          masks_drawn_on: for images with an EXIF orientation, whether shapes were drawn on the
            `displayed` or the `stored` image, see `DrawnBuilder` (default: `DRAWN_ON`).
          **kwargs: arguments of `SegmentationBuilder`.

        Raises:
          DeepLabError: a directory is missing, there are no annotations, there is only one class,
            or the lower end of `intensity_range` is not below the upper end.
        """
        self.source = unpacked(source, self)
        self.image_directory = given_directory(images) if images else self.source
        self.class_file = find_class_file(self.source, classes)
        check_intensity_range(intensity_range)
        # Images that were found by their file names: (annotation file, image).
        self._searched: set[tuple[Path, Path]] = set()
        found, names = self.read_annotations()
        if not any(found.values()):
            raise DeepLabError(f"{source}: no annotations found; {self.LAYOUT}")
        descriptor, self._labels, background = annotation_classes(
            self.name, names, self.class_file, self.source
        )
        self.descriptor = dataclasses.replace(descriptor, intensity_range=intensity_range)
        self._background = self._labels[background]
        super().__init__(masks_drawn_on=masks_drawn_on or self.DRAWN_ON, **kwargs)
        self._images = in_splits(self._without_shared_images(found), self)

    @abc.abstractmethod
    def read_annotations(
        self,
    ) -> tuple[dict[str | None, dict[str, ListedImage]], Iterable[str]]:
        """Reads the annotation files.

        Returns:
          - Images by split, then by id; the split is None for images without a split.
          - Names of the classes, in the order of their labels.
        """

    @abc.abstractmethod
    def layers(self, listed: ListedImage, size: tuple[int, int]) -> Iterator[Layer]:
        """Yields the drawn shapes of an image.

        Args:
          listed: image and its shapes.
          size: (height, width) of the masks.

        Raises:
          DeepLabError: a shape is damaged or does not fit the size.
        """

    def draw(
        self, listed: ListedImage, size: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        label = np.full(size, self._background, label_dtype(self.descriptor.num_classes))
        front, notes, empty = np.full(size, math.inf), [], True
        for layer in self.layers(listed, size):
            empty = False
            value = self._label_of(layer.name)
            rows = np.flatnonzero(layer.mask.any(axis=1))
            if not rows.size:
                notes.append(NO_PIXEL)
                continue
            within = slice(rows[0], rows[-1] + 1)
            visible = layer.mask[within] & (layer.depth <= front[within])
            label[within][visible] = value
            front[within][visible] = layer.depth
        return label, (NO_SHAPE,) if empty else tuple(notes)

    def notes(self) -> list[str]:
        used = {listed.path for images in self._images.values() for listed in images.values()}
        count = sum(path not in used for paths in self._images_by_name.values() for path in paths)
        unused = f"{count} images in {self.image_directory} without annotation are left out"
        return super().notes() + [unused] * bool(count)

    def find_image(self, name: str, origin: Path, split: str | None = None) -> Path:
        """Returns the image that an annotation file refers to.

        The image must be below the source directory or the image directory of the dataset. If there
        is no image at the given path, all subdirectories of the image directory are searched for an
        image with this file name. Directories of other splits are left out. When all images are
        found, `_without_shared_images` checks those that were found only by their file names.

        Args:
          name: path of the image in the annotation file.
          origin: annotation file.
          split: split of the image; None if it is unknown.

        Raises:
          DeepLabError: there is no such image, or there are several.
        """
        for directory in (origin.parent, self.image_directory, self.image_directory / "images"):
            if path := self.image_at(directory, name):
                return path
        file_name = PurePosixPath(PureWindowsPath(name).as_posix()).name
        by_split = defaultdict(list)
        for path in self._images_by_name[composed(file_name.lower())]:
            parts = path.relative_to(self.image_directory).parts[:-1]
            by_split[named_split(parts) if split else None].append(path)
        found = by_split[split] or by_split[None]
        if len(found) > 1:
            raise DeepLabError(
                f"the image {name!r} could be {found[0]} or {found[1]}; rename one of them, or "
                "correct the path in the annotation file"
            )
        if not found:
            of_split = f" for the split {split}" if any(by_split.values()) else ""
            raise DeepLabError(
                f"no image {name!r}{of_split} below {self.image_directory}; put it there, or give "
                "the directory of the images with --images=DIR"
            )
        self._searched.add((origin, found[0]))
        return found[0]

    def image_at(self, directory: Path, name: str) -> Path | None:
        """Returns the image at a path in an annotation file, or None if there is no such file.

        Args:
          directory: directory to which the path is relative.
          name: path of the image in the annotation file.
        """
        path = self.below(directory / PureWindowsPath(name).as_posix())
        # os.path.isfile returns False, without an error, for names that are not legal paths.
        return path if path and os.path.isfile(path) else None

    def _without_shared_images(
        self, found: Mapping[str | None, dict[str, ListedImage]]
    ) -> dict[str | None, dict[str, ListedImage]]:
        """Returns `found`, with a fault for each annotation whose image may be the wrong one.

        An image may be the wrong one if `find_image` found it only by its file name, and another
        annotation uses it, too.
        """
        uses = Counter(listed.path for images in found.values() for listed in images.values())

        def checked(listed: ListedImage) -> ListedImage:
            if (listed.origin, listed.path) not in self._searched or uses[listed.path] < 2:
                return listed
            fault = (
                f"{listed.origin}: its image {listed.path} was found only by the file name, but "
                f"{uses[listed.path]} annotations use it; add the missing image, or correct the "
                "path in the annotation file"
            )
            return listed._replace(fault=listed.fault or fault)

        return {
            split: {image_id: checked(listed) for image_id, listed in images.items()}
            for split, images in found.items()
        }

    def is_image(self, path: Path) -> bool:
        """Returns whether a file is an image of the dataset rather than a mask."""
        return True

    @functools.cached_property
    def _images_by_name(self) -> Mapping[str, list[Path]]:
        images = defaultdict(list)
        for path in filter(self.is_image, list_images(self.image_directory).images):
            images[composed(path.name.lower())].append(path)
        return images

    def below(self, path: Path) -> Path | None:
        """Returns `path` if it is below the source directory or the image directory, else None."""
        path = absolute(path)
        inside = any(path.is_relative_to(top) for top in (self.source, self.image_directory))
        return path if inside else None

    def json_files(self) -> list[Path]:
        """Returns all JSON files in the source, except class names and files of `prepare`."""
        return [
            path
            for path in visible_files(self.source, (".json",))
            if not (path.name in CLASS_FILES or path == self.class_file or in_prepared(path))
        ]

    def _label_of(self, name: str | None) -> int:
        if name in self._labels:
            return self._labels[name]
        if name is None or name.lower() in IGNORED_NAMES:
            return void_label(self.descriptor.num_classes)
        error = unknown_name("class", name, self._labels)
        raise DeepLabError(f"{error}; correct the annotation or add the class to {self.class_file}")


def add_image(
    found: dict[str | None, dict[str, ListedImage]],
    split: str | None,
    image_id: str,
    listed: ListedImage,
) -> None:
    """Adds an image to the dictionary `found`.

    Args:
      found: images by split, then by id; the split is None for images without a split.
      split: split of the image.
      image_id: id of the image, unique in the split.
      listed: the image.

    Raises:
      DeepLabError: the split already contains an image with this id.
    """
    earlier = found.setdefault(split, {}).setdefault(image_id, listed)
    if earlier is not listed:
        raise DeepLabError(
            f"{listed.origin}: the image {listed.path} has the same name as {earlier.path} in "
            f"{earlier.origin}; rename one image, or remove one of the annotation files"
        )
