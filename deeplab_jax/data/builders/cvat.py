"""Datasets from CVAT's export "Segmentation mask 1.1".

Source of the format: docs.cvat.ai, "Segmentation mask".
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.builders.base import in_splits
from deeplab_jax.data.builders.exports import (
    IGNORED_NAMES,
    annotation_classes,
    given_directory,
    named_split,
    unpacked,
    uppermost,
)
from deeplab_jax.data.builders.paired_files import Pair, PairedFilesBuilder, files_by_name
from deeplab_jax.data.descriptors import (
    Color,
    check_intensity_range,
    find_class_file,
    read_text,
)
from deeplab_jax.data.images import StorableImage, storable_image
from deeplab_jax.data.masks import MaskFile, read_colored_mask
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.listing import composed, leads_out, visible_files

LABEL_MAP, LISTS = "labelmap.txt", "ImageSets/Segmentation"
LABEL_LINE = re.compile(r"([^:]+):(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3}):[^:]*:[^:]*", re.ASCII)
BLACK = (0, 0, 0)
IMAGES, MASKS = "JPEGImages", "SegmentationClass"


class Cvat(PairedFilesBuilder):
    """Reads masks in `SegmentationClass/`; `labelmap.txt` defines the color of each class.

    The text files in `ImageSets/Segmentation/`, such as `train.txt`, list the images of each split.
    If there is only one list, and its name is not that of a split, a hash of the file names divides
    its images into train and val.
    """

    LANDMARK = MASKS
    LAYOUT = (
        f"a cvat source is the export 'Segmentation mask 1.1': {LABEL_MAP}, {IMAGES}/, {MASKS}/ "
        f"and {LISTS}/*.txt"
    )

    def __init__(
        self,
        *,
        source: str | Path,
        classes: str | Path | None = None,
        images: str | Path | None = None,
        intensity_range: tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Reads the label map, and finds the pairs of image and mask.

        Args:
          source: directory or zip archive.
          classes: file of class names, as text with one name per line or as JSON (default:
            `classes.txt` or `classes.json` in the source, else the names of the label map,
            background first).
          images: directory of the images (default: `JPEGImages/`).
          intensity_range: (low, high), values of 16-bit and float images that become 0 and 255
            (default for each image: smallest range that contains 0 and all its pixel values).
          **kwargs: arguments of `PairedFilesBuilder`.

        Raises:
          DeepLabError: a directory or a file of the export is missing, the label map is damaged or
            does not contain the given classes, or the lower end of `intensity_range` is not below
            the upper end.
        """
        check_intensity_range(intensity_range)
        directory = unpacked(source, self)
        # The export may be in a subdirectory of the source.
        found = [path for path in visible_files(directory, (".txt",)) if path.name == LABEL_MAP]
        if not found:
            raise DeepLabError(f"{source}: no {LABEL_MAP} in it; {self.LAYOUT}")
        self._label_map = uppermost(found)
        root = self._label_map.parent
        self._images = given_directory(images) if images else root / IMAGES
        colors = read_label_map(self._label_map)
        file = find_class_file(directory, classes) or find_class_file(root, None)
        descriptor, labels, background = annotation_classes(self.name, colors, file, root)
        if background not in colors and BLACK in colors.values():
            raise DeepLabError(
                f"{self._label_map}: a class has the color black, which is reserved for the class "
                f"{background!r}; rename the class to {background!r}, or change its color"
            )
        colors.setdefault(background, BLACK)
        self._color_labels = _color_labels(colors, labels, self._label_map)
        for name in descriptor.class_names:
            if name not in colors:
                raise DeepLabError(
                    f"{self._label_map}: no color for the class {name!r}; add a line for it"
                )
        palette = tuple(colors[name] for name in descriptor.class_names)
        self.descriptor = dataclasses.replace(
            descriptor, palette=palette, intensity_range=intensity_range
        )
        super().__init__(source=root, **kwargs)

    def find_pairs(self) -> dict[str, dict[str, Pair]]:
        if not self._images.is_dir():
            raise DeepLabError(
                f"{self._images}: no such directory; export again with the images, or give the "
                "directory of the images with --images=DIR"
            )
        masks_directory = self.source / MASKS
        images, masks = (
            files_by_name(directory, lambda path: composed(path.with_suffix("").as_posix()))
            for directory in (self._images, masks_directory)
        )
        lists = list(visible_files(self.source / LISTS, (".txt",)))
        if not lists:
            raise DeepLabError(f"{self.source}: no list of images in {LISTS}/; {self.LAYOUT}")
        found: dict[str | None, dict[str, Pair]] = {}
        for path in lists:
            split = named_split([path.stem])
            if split is None and len(lists) > 1:
                raise DeepLabError(
                    f"{path}: {path.stem!r} is not the name of a split; rename the list of images "
                    "to train.txt, val.txt or test.txt"
                )
            for line in read_text(path, "list of images").splitlines():
                # Names with spaces are in quotes.
                if name := composed(line.strip().strip('"')):
                    if leads_out(name):
                        raise DeepLabError(
                            f"{path}: {name!r} is outside {self._images}; correct the path"
                        )
                    image = images.get(name, self._images / f"{name}.*")
                    mask = masks.get(name, masks_directory / f"{name}.png")
                    found.setdefault(split, {})[name] = Pair(image, mask)
        return in_splits(found, self)

    def read_label(self, mask: MaskFile) -> np.ndarray:
        dtype = label_dtype(self.descriptor.num_classes)
        return read_colored_mask(
            mask, self._color_labels, dtype=dtype, color_map=str(self._label_map)
        )

    def read_storable_image(self, path: Path) -> StorableImage:
        return storable_image(path, self.descriptor.intensity_range)

    def directories(self) -> set[Path]:
        return {self._images, self.source / MASKS}

    def used_colors(self, mask: MaskFile) -> Mapping[int, Color]:
        # Only the colors define classes; the palette indices may differ between files.
        return {}


def read_label_map(path: Path) -> dict[str, Color]:
    """Reads the color of each class from lines `name:r,g,b:parts:actions`.

    Raises:
      DeepLabError: a line has a different form, or a name or color occurs twice.
    """
    colors: dict[str, Color] = {}
    for number, line in enumerate(read_text(path, "label map").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{path}, line {number}"
        match = LABEL_LINE.fullmatch(line.strip())
        color = (int(match[2]), int(match[3]), int(match[4])) if match else (0, 0, 0)
        if not match or max(color) > 255:
            raise DeepLabError(
                f"{place}: the line must have the form `name:r,g,b::` with r, g and b in 0..255, "
                "as in `car:128,0,64::`"
            )
        name = match[1]
        if name in colors or color in colors.values():
            raise DeepLabError(
                f"{place}: label {name!r} has the same name or color as an earlier label; change "
                "the name or the color"
            )
        colors[name] = color
    return colors


def _color_labels(
    colors: Mapping[str, Color], labels: Mapping[str, int], path: Path
) -> dict[Color, int]:
    for name in colors:
        if name not in labels and name.lower() not in IGNORED_NAMES:
            raise DeepLabError(f"{path}: {unknown_name('class', name, labels)}")
    void = void_label(len(labels))
    return {color: labels.get(name, void) for name, color in colors.items()}
