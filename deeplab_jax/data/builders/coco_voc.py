"""COCO with VOC's classes, which DeepLab v3 and v3+ are pretrained on.

Objects of COCO's other classes are background. train is COCO 2017's, which is trainval of 2014
without minival; val is minival.
Source: Lin et al. 2014 (arXiv:1405.0312); DeepLab v3 (arXiv 1706.05587), section 4.3.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deeplab_jax.data.builders.base import Facts, LoadedExample, SegmentationBuilder
from deeplab_jax.data.builders.paired_files import find_root
from deeplab_jax.data.descriptors import VOC, parse_json, read_text
from deeplab_jax.data.image_layout import UPRIGHT, aligned_label, stored_size, turned
from deeplab_jax.data.images import StorableImage, storable_image
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_LABEL


def draw_polygon(corners: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels whose centers lie inside a polygon (even-odd rule).

    Args:
      corners: x, y, x, y, … in pixels from the upper left corner of the image; may lie outside it.
      size: (height, width) of the image.

    Returns:
      bool [height, width].
    """
    points = np.asarray(corners, float).reshape(-1, 2)
    mask = np.zeros(size, bool)
    # Most objects are small: only their bounding box is computed.
    left, top = (np.clip(np.floor(points.min(0)), 0, size[::-1])).astype(int)
    right, bottom = (np.clip(np.ceil(points.max(0)), 0, size[::-1])).astype(int)
    box = mask[top:bottom, left:right]
    box[:] = _inside(points - (left, top), *box.shape)
    return mask


def _inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Counts the edges to the left of every pixel's center; odd counts are inside."""
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    # Rows whose centers an edge crosses, its lower end excluded; level edges cross none.
    first, last = (
        np.clip(np.ceil(end(y0, y1) - 0.5), 0, height).astype(int)
        for end in (np.minimum, np.maximum)
    )
    counts = last - first
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.ceil(x0[edge] + (row + 0.5 - y0[edge]) * slope - 0.5)
    turns = np.zeros((height, width + 1), int)
    np.add.at(turns, (row, np.clip(column, 0, width).astype(int)), 1)
    return np.cumsum(turns, axis=1)[:, :width] % 2 == 1


def draw_runs(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of run lengths: outside, inside, outside, …, column by column.

    Args:
      counts: numbers of pixels; their sum is the image's.
      size: (height, width) of the image.

    Returns:
      bool [height, width].

    Raises:
      DeepLabError: the sum differs from the image's number of pixels.
    """
    height, width = size
    if sum(counts) != height * width:
        raise DeepLabError(f"{sum(counts)} pixels in runs for an image of {height}x{width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


# VOC's names that COCO spells differently.
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
# A note on an example, see `Facts`.
NO_PIXEL = "annotation that drew no pixel"
LAYOUT = (
    "a COCO source holds train2017/ and val2017/ (or both in images/) and "
    "annotations/instances_train2017.json, instances_val2017.json"
)


class ListedImage(NamedTuple):
    """An image of the annotation file.

    Attributes:
      path: path of the image file.
      size: (height, width) that the annotation file declares; None without them.
      objects: annotations of VOC's classes.
    """

    path: Path
    size: tuple[int, int] | None
    objects: list[dict]


class CocoVoc(SegmentationBuilder, skip_registration=True):
    """Draws the objects of `annotations/instances_*2017.json`.

    train holds the images whose objects of VOC's classes have more than `min_area` pixels together,
    val all images. Where objects overlap the smaller one is in front; crowds are void.
    """

    descriptor = VOC

    def __init__(
        self,
        *,
        source: str | Path,
        min_area: int = 1000,
        masks_drawn_on: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Reads the annotations.

        Args:
          source: directory of the raw files.
          min_area: see above (default: 1000, from DeepLab v3, section 4.3).
          masks_drawn_on: see `PairedFilesBuilder`; the annotations' own height and width decide
            first.
          **kwargs: arguments of `SegmentationBuilder`.

        Raises:
          DeepLabError: the source or its annotations do not exist.
        """
        self.source = find_root(Path(source).expanduser(), "annotations", LAYOUT)
        self._masks_drawn_on = masks_drawn_on
        self._left_out_counts: Counter[str] = Counter()
        self._images = {
            split: self._read(split, least) for split, least in (("train", min_area), ("val", -1))
        }
        super().__init__(**kwargs)

    def image_ids(self) -> dict[str, Sequence[str]]:
        return {split: list(images) for split, images in self._images.items()}

    def load(self, split: str, image_id: str) -> LoadedExample:
        listed = self._images[split][image_id]
        image = storable_image(listed.path)
        try:
            label, empty = self._draw(listed, image)
        except (DeepLabError, KeyError, TypeError, ValueError) as error:
            raise DeepLabError(f"{listed.path}: its annotation cannot be drawn: {error}") from error
        notes = (*image.notes, *[NO_PIXEL] * empty)
        return LoadedExample(image.encoded, label, Facts(image.digest, notes))

    def notes(self) -> list[str]:
        counts = sorted((+self._left_out_counts).items())
        return super().notes() + [f"{count} left out: {reason}" for reason, count in counts]

    def _draw(self, listed: ListedImage, image: StorableImage) -> tuple[np.ndarray, int]:
        """Returns the upright label, and the number of objects without a pixel in it."""
        path, declared, objects = listed
        stored = stored_size(image.size, image.orientation)
        if declared not in (None, image.size, stored):
            raise DeepLabError(
                f"it is for an image of {declared[0]}x{declared[1]} (height x width), but the file "
                f"is {image.size[0]}x{image.size[1]}"
            )
        if image.orientation == UPRIGHT:
            return draw_objects(objects, image.size)
        as_displayed, empty = draw_objects(objects, image.size)
        as_stored, empty_stored = draw_objects(objects, stored)
        label, drawn_on_stored = aligned_label(
            as_displayed if declared in (None, image.size) else None,
            turned(as_stored, image.orientation) if declared in (None, stored) else None,
            orientation=image.orientation,
            drawn_on=self._masks_drawn_on,
            origin=path,
        )
        return label, empty_stored if drawn_on_stored else empty

    def _read(self, split: str, min_area: int) -> dict[str, ListedImage]:
        path = self.source / f"annotations/instances_{split}2017.json"
        inside = self.source / "images" / f"{split}2017"
        directory = inside if inside.is_dir() else self.source / inside.name
        content = parse_json(read_text(path, "annotations"), path)
        try:
            labels = _labels(content["categories"])
            images = sorted(content["images"], key=lambda image: image["id"])
            objects = self._objects_of(split, content["annotations"], labels, images)
            kept = [image for image in images if _area(objects[image["id"]]) > min_area]
            dropped = len(images) - len(kept)
            self._left_out_counts[f"images of {split}: objects too small"] += dropped
            listed = {
                Path(image["file_name"]).stem: ListedImage(
                    directory / image["file_name"], _declared_size(image), objects[image["id"]]
                )
                for image in kept
            }
        except (KeyError, TypeError) as error:
            raise DeepLabError(f"{path}: not COCO's instances: no {error}") from error
        if len(listed) < len(kept):
            raise DeepLabError(f"{path}: two images have the same file name; rename one")
        return listed

    def _objects_of(
        self, split: str, annotations: Sequence[dict], labels: dict[int, int], images: list[dict]
    ) -> defaultdict[int, list[dict]]:
        """Returns the objects of VOC's classes by image, and counts the others."""
        objects = defaultdict(list)
        listed = {image["id"] for image in images}
        for thing in annotations:
            if thing["category_id"] not in labels:
                self._left_out_counts[f"annotations of {split}: not of VOC's classes"] += 1
            elif thing["image_id"] not in listed:
                self._left_out_counts[f"annotations of {split}: their image is not listed"] += 1
            else:
                thing["label"] = labels[thing["category_id"]]
                objects[thing["image_id"]].append(thing)
        return objects


def draw_objects(objects: Sequence[dict], size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Draws the label of an image.

    Args:
      objects: COCO's annotations, each with the `label` of its class.
      size: (height, width) of the image.

    Returns:
      uint8 [height, width], 0 for background; and the number of objects without a pixel.
    """
    label, empty = np.zeros(size, np.uint8), 0
    # Crowds first, then from the largest to the smallest.
    for thing in sorted(objects, key=lambda thing: (not thing.get("iscrowd"), -thing["area"])):
        mask = _mask(thing["segmentation"], size)
        label[mask] = VOID_LABEL if thing.get("iscrowd") else thing["label"]
        empty += not mask.any()
    return label, empty


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return np.any([draw_polygon(polygon, size) for polygon in segmentation], axis=0)
    if isinstance(segmentation["counts"], str) or tuple(segmentation["size"]) != size:
        raise DeepLabError(f"run lengths of another size than {size}, or compressed ones")
    return draw_runs(segmentation["counts"], size)


def _labels(categories: Sequence[dict]) -> dict[int, int]:
    """Returns VOC's label of each of COCO's ids that has one."""
    names = [COCO_NAMES.get(name, name) for name in VOC.class_names]
    return {
        category["id"]: names.index(category["name"])
        for category in categories
        if category["name"] in names
    }


def _declared_size(image: dict) -> tuple[int, int] | None:
    """Returns (height, width) as an image's entry declares them; None without them."""
    size = image.get("height"), image.get("width")
    return None if None in size else size


def _area(objects: Sequence[dict]) -> float:
    """Returns the number of pixels of an image's objects, without crowds."""
    return sum(thing["area"] for thing in objects if not thing.get("iscrowd"))
