"""COCO with the classes of PASCAL VOC, on which DeepLab v3 and v3+ are pretrained.

Objects of all other COCO classes are background. The splits are train and val of COCO 2017. Train
corresponds to trainval of COCO 2014 without minival, and val corresponds to minival.
Source: Lin et al. 2014 (arXiv:1405.0312); DeepLab v3 (arXiv 1706.05587), section 4.3.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.builders.annotations import NO_PIXEL, DrawnBuilder, ListedImage
from deeplab_jax.data.builders.paired_files import find_root
from deeplab_jax.data.descriptors import VOC, parse_json, read_text
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.labels import VOID_LABEL


def draw_polygon(corners: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns the mask of a polygon: True at pixels whose centers are inside (even-odd rule).

    Args:
      corners: x, y, x, y, … in pixels from the top left corner of the image. Corners may be outside
        the image.
      size: (height, width) of the image.

    Returns:
      bool [height, width].
    """
    points = np.asarray(corners, float).reshape(-1, 2)
    mask = np.zeros(size, bool)
    # Most objects are small, so only pixels in the bounding box are tested.
    left, top = (np.clip(np.floor(points.min(0)), 0, size[::-1])).astype(int)
    right, bottom = (np.clip(np.ceil(points.max(0)), 0, size[::-1])).astype(int)
    box = mask[top:bottom, left:right]
    box[:] = _inside(points - (left, top), *box.shape)
    return mask


def _inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns whether each pixel center is inside a polygon, bool [height, width].

    A pixel center is inside if it is to the right of an odd number of edges.

    Args:
      points: corners (x, y) of the polygon in pixels, [number, 2].
      height: height of the image in pixels.
      width: width of the image in pixels.
    """
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    # Rows of pixel centers that each edge crosses; the row of its lower end is excluded. Horizontal
    # edges cross no row.
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
    """Returns the mask that COCO's run lengths encode.

    Args:
      counts: numbers of successive pixels outside, inside, outside, … the object, in column-major
        order; their sum is the number of pixels in the image.
      size: (height, width) of the image.

    Returns:
      bool [height, width].

    Raises:
      DeepLabError: the sum differs from the number of pixels in the image.
    """
    height, width = size
    if sum(counts) != height * width:
        raise DeepLabError(
            f"the run lengths have {sum(counts)} pixels in total, but the image is "
            f"{height}x{width} (height x width); download the annotations again"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


# VOC's name and COCO's name of each class whose names differ.
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
LAYOUT = (
    "a COCO source contains train2017/ and val2017/ (or both in images/) and "
    "annotations/instances_train2017.json, instances_val2017.json"
)


class CocoVoc(DrawnBuilder):
    """Builder of COCO with the classes of PASCAL VOC.

    The builder draws those objects in `annotations/instances_*2017.json` that belong to classes of
    VOC. Smaller objects cover larger ones. Crowds are void, except where objects cover them.

    The split train contains only images in which the drawn objects, except crowds, have a total
    area of more than `min_area` pixels. The split val contains all images.
    """

    descriptor = VOC

    def __init__(self, *, source: str | Path, min_area: int = 1000, **kwargs: Any) -> None:
        """Reads the annotations.

        Args:
          source: directory of the raw files.
          min_area: an image is in the split train only if its objects of VOC's classes, except
            crowds, have a total area of more than this number of pixels. The areas are those that
            COCO states (default: 1000, as in DeepLab v3, section 4.3).
          **kwargs: arguments of `DrawnBuilder`.

        Raises:
          DeepLabError: the source or its annotations do not exist, or the annotations are invalid.
        """
        self.source = find_root(as_path(source), "annotations", LAYOUT)
        self._left_out_counts: Counter[str] = Counter()
        self._images = {
            split: self._read(split, least) for split, least in (("train", min_area), ("val", -1))
        }
        super().__init__(**kwargs)

    def draw(
        self, listed: ListedImage, size: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        label, empty = draw_objects(listed.shapes, size)
        return label, (NO_PIXEL,) * empty

    def notes(self) -> list[str]:
        counts = sorted((+self._left_out_counts).items())
        return super().notes() + [f"{count} left out: {reason}" for reason, count in counts]

    def _read(self, split: str, min_area: int) -> dict[str, ListedImage]:
        path = self.source / f"annotations/instances_{split}2017.json"
        inside = self.source / "images" / f"{split}2017"
        directory = inside if inside.is_dir() else self.source / inside.name
        content: Any = parse_json(read_text(path, "annotations"), path)
        try:
            labels = _labels(content["categories"])
            images = sorted(content["images"], key=lambda image: image["id"])
            objects = self._objects_of(split, content["annotations"], labels, images)
            kept = [image for image in images if _area(objects[image["id"]]) > min_area]
            dropped = len(images) - len(kept)
            self._left_out_counts[f"images of {split} with too few object pixels"] += dropped
            listed = {
                Path(image["file_name"]).stem: ListedImage(
                    directory / image["file_name"], _declared_size(image), objects[image["id"]]
                )
                for image in kept
            }
        except (KeyError, TypeError) as error:
            wrong = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise DeepLabError(
                f"{path} is not a file of COCO instance annotations ({wrong}); download the "
                "annotations again"
            ) from error
        if len(listed) < len(kept):
            raise DeepLabError(f"{path}: two images have the same file name; rename one")
        return listed

    def _objects_of(
        self,
        split: str,
        annotations: Sequence[dict[str, Any]],
        labels: dict[int, int],
        images: list[dict[str, Any]],
    ) -> defaultdict[int, list[dict[str, Any]]]:
        """Returns the objects of VOC's classes by image id.

        Annotations of other classes, and of images that the file does not list, are left out. The
        remarks for the user state the number of these annotations.

        Args:
          split: name of the split, for the remarks.
          annotations: all annotations of the COCO file.
          labels: {COCO category id: VOC label}.
          images: all images that the COCO file lists.
        """
        objects = defaultdict(list)
        listed = {image["id"] for image in images}
        for thing in annotations:
            if thing["category_id"] not in labels:
                self._left_out_counts[f"annotations of {split} with other classes than VOC's"] += 1
            elif thing["image_id"] not in listed:
                self._left_out_counts[f"annotations of {split} for images not in the file"] += 1
            else:
                thing["label"] = labels[thing["category_id"]]
                objects[thing["image_id"]].append(thing)
        return objects


def draw_objects(
    objects: Sequence[dict[str, Any]], size: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """Draws the label of an image.

    Args:
      objects: COCO annotations; each has an additional key `label`, the label of its class.
      size: (height, width) of the image.

    Returns:
      Label, uint8 [height, width], 0 for background; and the number of objects whose mask is empty.
    """
    label, empty = np.zeros(size, np.uint8), 0
    # Crowds are drawn first, then objects from the largest to the smallest.
    for thing in sorted(objects, key=lambda thing: (not thing.get("iscrowd"), -thing["area"])):
        mask = _mask(thing["segmentation"], size)
        label[mask] = VOID_LABEL if thing.get("iscrowd") else thing["label"]
        empty += not mask.any()
    return label, empty


def _mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return np.any([draw_polygon(polygon, size) for polygon in segmentation], axis=0)
    if isinstance(segmentation["counts"], str) or tuple(segmentation["size"]) != size:
        raise DeepLabError(
            f"the run lengths must be uncompressed, and their size must be {list(size)} (height, "
            "width), the size of the image; download the annotations again"
        )
    return draw_runs(segmentation["counts"], size)


def _labels(categories: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Returns {COCO category id: VOC label} for the categories that are classes of VOC."""
    names = [COCO_NAMES.get(name, name) for name in VOC.class_names]
    return {
        category["id"]: names.index(category["name"])
        for category in categories
        if category["name"] in names
    }


def _declared_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Returns the (height, width) that COCO states for an image; None if they are missing."""
    height, width = image.get("height"), image.get("width")
    return None if height is None or width is None else (height, width)


def _area(objects: Sequence[dict[str, Any]]) -> float:
    """Returns the total area, in pixels, that COCO states for the objects except crowds."""
    return sum(thing["area"] for thing in objects if not thing.get("iscrowd"))
