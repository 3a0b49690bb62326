"""Datasets from labelme annotations, one JSON file per image.

Source of the format and of the drawing rules: github.com/wkentaro/labelme.
"""

import base64
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ImageDraw

from deeplab_jax.data.builders.annotations import AnnotationsBuilder, Layer, ListedImage, add_image
from deeplab_jax.data.builders.exports import (
    checked_points,
    declared_size,
    entries,
    is_class_name,
    named_split,
)
from deeplab_jax.data.descriptors import parse_json, read_text
from deeplab_jax.data.images import StorableImage, open_image, storable_image
from deeplab_jax.data.orientation import DISPLAYED
from deeplab_jax.errors import DeepLabError, check_name

# Width of lines and radius of points as labelme draws them, in pixels.
LINE_WIDTH, POINT_RADIUS = 10, 5
# Minimum number of points of each type of shape.
LEAST_POINTS = {
    "polygon": 3,
    "rectangle": 2,
    "oriented_rectangle": 4,
    "circle": 2,
    "line": 2,
    "linestrip": 2,
    "point": 1,
    "mask": 2,
}
# Types of shapes that may have more than the minimum number of points.
OPEN_ENDED = ("polygon", "linestrip")


class Labelme(AnnotationsBuilder):
    """Builder of a dataset from the JSON files that labelme writes, one for each image.

    All JSON files below the source are read, except the file of class names. The label of an image
    is drawn from the shapes in its JSON file, in the order of the file: later shapes cover earlier
    ones. The directories `train/`, `val/` and `test/` define the splits.

    Each JSON file states the path of its image as `imagePath`. IMAGES is the directory that is
    given as `images` (default: the source). The image is the first of these that exists:

    * the file at `imagePath`, relative to the directory of the JSON file,
    * the image that is embedded in the JSON file as `imageData`,
    * the file at `imagePath`, relative to IMAGES or to IMAGES/images,
    * the only image below IMAGES with the file name in `imagePath`.
    """

    LAYOUT = "a labelme source contains one JSON file per image, in any subdirectory"
    # labelme applies the EXIF orientation before it displays an image.
    DRAWN_ON = DISPLAYED

    def read_annotations(
        self,
    ) -> tuple[dict[str | None, dict[str, ListedImage]], Iterable[str]]:
        found: dict[str | None, dict[str, ListedImage]] = {}
        for path in self.json_files():
            relative = path.relative_to(self.source).with_suffix("")
            try:
                listed = self._read(path)
            except DeepLabError as error:
                listed = ListedImage(path, None, (), fault=str(error))
            add_image(found, named_split(relative.parts[:-1]), relative.as_posix(), listed)
        images = [listed for split in found.values() for listed in split.values()]
        return found, sorted({shape["label"] for listed in images for shape in listed.shapes})

    def read_storable_image(self, listed: ListedImage) -> StorableImage:
        if listed.path != listed.origin:
            return super().read_storable_image(listed)
        # The embedded image is read again from the JSON file, because keeping all embedded images
        # in memory would be expensive.
        content: Any = parse_json(read_text(listed.path, "annotation"), listed.path)
        encoded = _decoded(content["imageData"], f"{listed.path}: imageData")
        limits = self.descriptor.intensity_range
        return storable_image(encoded, limits, name=f"{listed.path}: imageData")

    def layers(self, listed: ListedImage, size: tuple[int, int]) -> Iterator[Layer]:
        for number, shape in enumerate(listed.shapes, 1):
            kind = str(shape.get("shape_type") or "polygon")[:40]
            try:
                mask = draw_shape(kind, shape.get("points"), size, shape.get("mask"))
            except DeepLabError as error:
                raise DeepLabError(
                    f"shape {number} ({kind!r}, {shape['label']!r}): {error}"
                ) from None
            yield Layer(shape["label"], mask)

    def _read(self, path: Path) -> ListedImage:
        content: Any = parse_json(read_text(path, "annotation"), path)
        shapes = entries(content, "shapes", path)
        for number, shape in enumerate(shapes, 1):
            if not is_class_name(shape.get("label")):
                raise DeepLabError(f"{path}: shape {number} has no label; add one in labelme")
        name, embedded = content.get("imagePath"), isinstance(content.get("imageData"), str)
        try:
            size = declared_size(content.get("imageHeight"), content.get("imageWidth"))
            name = name if isinstance(name, str) else ""
            # An image of this name elsewhere may be another one.
            beside = self.image_at(path.parent, name)
            image = beside or (path if embedded else self.find_image(name, path))
        except DeepLabError as error:
            raise DeepLabError(f"{path}: {error}") from None
        return ListedImage(image, size, shapes, path)


def draw_shape(
    kind: str, points: object, size: tuple[int, int], encoded_mask: object = None
) -> np.ndarray:
    """Draws the mask of a shape, equal to the result of labelme's `shape_to_mask`.

    Args:
      kind: type of the shape, `shape_type` in labelme.
      points: pairs (x, y) in pixels.
      size: (height, width) of the image.
      encoded_mask: for the type `mask`, a base64-encoded PNG of the box between the two points.

    Returns:
      bool [height, width].

    Raises:
      DeepLabError: the type is unknown, the number of points is illegal for the type, or
        `encoded_mask` is not an image of the size of the box.
    """
    check_name("shape_type", kind, LEAST_POINTS)
    least = LEAST_POINTS[kind]
    corners = checked_points(points, size, least)
    if kind not in OPEN_ENDED and len(corners) > least:
        raise DeepLabError(
            f"the shape has {len(corners)} points, but its type requires exactly {least}; draw the "
            "shape again"
        )
    if kind == "mask":
        return _paste_mask(corners.astype(int), encoded_mask, size)
    canvas = PIL.Image.new("L", size[::-1])
    pen = PIL.ImageDraw.Draw(canvas)
    xy = [tuple(point) for point in corners.tolist()]
    match kind:
        case "polygon" | "oriented_rectangle":
            pen.polygon(xy, fill=1, outline=1)
        case "rectangle":
            pen.rectangle([*corners.min(0).tolist(), *corners.max(0).tolist()], fill=1, outline=1)
        case "line" | "linestrip":
            pen.line(xy, fill=1, width=LINE_WIDTH)
        case "circle" | "point":
            (x, y), (x1, y1) = xy[0], xy[-1]
            # This is labelme's expression; math.dist is rounded differently.
            circle = math.sqrt((x - x1) ** 2 + (y - y1) ** 2)
            radius = circle if kind == "circle" else POINT_RADIUS
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
    return np.asarray(canvas) > 0


def _paste_mask(corners: np.ndarray, encoded: object, size: tuple[int, int]) -> np.ndarray:
    (left, top), (right, bottom) = corners.tolist()
    pixels = np.asarray(open_image(_decoded(encoded, "the mask"), "the mask"))
    mask = np.zeros(size, bool)
    box = mask[max(top, 0) : max(bottom + 1, 0), max(left, 0) : max(right + 1, 0)]
    if min(left, top) < 0 or box.shape != pixels.shape:
        shape = "x".join(map(str, pixels.shape))
        raise DeepLabError(
            f"the mask of {shape} (height x width) does not fit the box from (x, y) = ({left}, "
            f"{top}) to ({right}, {bottom}) in the image; draw the shape again"
        )
    box[:] = pixels.astype(bool)
    return mask


def _decoded(encoded: Any, name: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise DeepLabError(
            f"{name} must be a base64-encoded image; save the file again in labelme"
        ) from None
