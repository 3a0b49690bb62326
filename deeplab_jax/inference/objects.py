"""Finds connected regions in class maps, and places images on a new background."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import MAX_CLASSES, void_label, void_of


def soft_mask(probabilities: np.ndarray, classes: Collection[int]) -> np.ndarray:
    """Returns, for each pixel, the probability that it belongs to any of the given classes.

    Args:
      probabilities: floating point [H, W, num_classes], such as `Prediction.probabilities`.
      classes: indices of the foreground classes.

    Returns:
      float32 [H, W], 0..1.

    Raises:
      DeepLabError: a class does not exist, or none is given.
    """
    num_classes = probabilities.shape[-1]
    chosen = sorted(set(classes))
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_classes:
        raise DeepLabError(
            f"classes must be one or more class indices in 0..{num_classes - 1}, got {chosen}"
        )
    total = probabilities[..., chosen].sum(axis=-1, dtype=np.float32)
    return np.clip(total, 0, 1)


def feathered(mask: np.ndarray, width: float) -> np.ndarray:
    """Smooths the edges of a mask by a Gaussian blur, for use as opacity.

    Across a straight edge, the result falls like a cumulative normal distribution: ½ at the edge,
    and 16 % at `width` pixels outside the mask. At the border of the image, the blur repeats the
    outermost values.

    Args:
      mask: [H, W], boolean or floating point 0..1.
      width: standard deviation of the Gaussian blur in pixels; 0 disables it.

    Returns:
      float32 [H, W], 0..1.

    Raises:
      DeepLabError: the width is negative.
    """
    if width < 0:
        raise DeepLabError(f"feathering width={width} must be 0 or more pixels")
    alpha: np.ndarray = np.asarray(mask, np.float32)
    if width:
        # For kernel size (0, 0), OpenCV computes the kernel size from `width`.
        alpha = cv2.GaussianBlur(alpha, (0, 0), width, borderType=cv2.BORDER_REPLICATE)
    return np.clip(alpha, 0, 1)


def composite(image: np.ndarray, background: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blends an image with a background: alpha·image + (1 − alpha)·background.

    Args:
      image: uint8 [H, W, 3].
      background: uint8 [H, W, 3], or one color [3].
      alpha: opacity of the image, [H, W], 0..1.

    Returns:
      uint8 [H, W, 3], rounded.

    Raises:
      DeepLabError: image, background and alpha do not have the same height and width.
    """
    background = np.asarray(background)
    if alpha.shape != image.shape[:2] or background.shape not in (image.shape, (3,)):
        sizes = f"image {list(image.shape)}, background {list(background.shape)}"
        raise DeepLabError(
            "image, background and alpha must have the same height and width, got shapes "
            f"{sizes}, alpha {list(alpha.shape)}; the background may also be a color [3]"
        )
    opacity = np.asarray(alpha, np.float32)[..., None]
    mixed = opacity * image + (1 - opacity) * background.astype(np.float32)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


class Box(NamedTuple):
    """Bounding box in pixels; the row `bottom` and the column `right` are outside the box."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Slices of rows and columns, as in `image[box.window]`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentedObject:
    """Connected region of one class.

    Attributes:
      class_index: index of the class.
      box: bounding box.
      mask: bool [height, width] of the box; True at pixels of the region.
      area: number of pixels.
      centroid: mean (row, column) of the pixels.
      score: mean probability of the class over the pixels; None: not computed.
    """

    class_index: int
    box: Box
    mask: np.ndarray
    area: int
    centroid: tuple[float, float]
    score: float | None = None

    def as_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Returns a JSON-ready dictionary of class name, box, area, centroid and score.

        The box is [left, top, width, height], as in COCO, and the centroid is (column, row).
        """
        top, left, bottom, right = self.box
        row, column = self.centroid
        return {
            "class_name": class_names[self.class_index],
            "box": [left, top, right - left, bottom - top],
            "area": self.area,
            "centroid": [round(column, 2), round(row, 2)],
            "score": None if self.score is None else round(self.score, 4),
        }


def find_objects(
    class_map: np.ndarray,
    classes: Collection[int] | None = None,
    *,
    min_area: int = 1,
    connectivity: int = 8,
    probabilities: np.ndarray | None = None,
    num_classes: int | None = None,
) -> list[SegmentedObject]:
    """Returns the connected regions of each class, ordered by class, then by decreasing area.

    Objects of the same class that touch each other form one region.

    Args:
      class_map: integers [H, W]; void is 255, or 65535 for more than 255 classes.
      classes: classes whose regions are returned; None: all classes in the map.
      min_area: minimum area of a region, in pixels.
      connectivity: 8, or 4 to separate pixels that share only a corner.
      probabilities: class probabilities [H, W, num_classes], for the scores.
      num_classes: number of classes of the model (default: as in `probabilities`). If neither
        `num_classes` nor `probabilities` is given, void is 65535 in uint16 maps and in maps with
        values above 255, and 255 in all other maps.

    Raises:
      DeepLabError: the class map has the wrong shape or dtype, the connectivity is neither 4 nor 8,
        or it is ambiguous whether 255 is void or a class.
    """
    if class_map.ndim != 2 or not np.issubdtype(class_map.dtype, np.integer):
        given = f"{class_map.dtype} {list(class_map.shape)}"
        raise DeepLabError(
            f"a class map must be an integer array of shape [height, width], got {given}"
        )
    if connectivity not in (4, 8):
        raise DeepLabError(f"connectivity={connectivity} must be 4 or 8")
    if num_classes is None and probabilities is not None:
        num_classes = probabilities.shape[-1]
    values = set(np.unique(class_map).tolist())
    present = values - {_void(class_map, values, num_classes)}
    wanted = sorted(present if classes is None else present & set(classes))
    found = []
    for index in wanted:
        scores = None if probabilities is None else probabilities[..., index]
        regions = _regions(class_map == index, index, connectivity, min_area, scores)
        found += sorted(regions, key=lambda region: -region.area)
    return found


def _void(class_map: np.ndarray, values: set[int], num_classes: int | None) -> int:
    if num_classes is not None:
        return void_label(num_classes)
    void = void_of(class_map)
    if max(values, default=0) <= void:
        return void
    if void in values:
        raise DeepLabError(
            f"the class map contains {void} and {max(values)}, so it is ambiguous whether {void} "
            "is void or a class; give num_classes, the number of classes of the model"
        )
    return MAX_CLASSES


def _regions(
    mask: np.ndarray, index: int, connectivity: int, min_area: int, scores: np.ndarray | None
) -> list[SegmentedObject]:
    _, numbers, statistics, centroids = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    found = []
    # Component 0 is the background.
    for number, (left, top, width, height, area) in enumerate(statistics.tolist()):
        if number == 0 or area < min_area:
            continue
        box = Box(top, left, top + height, left + width)
        inside = numbers[box.window] == number
        column, row = centroids[number].tolist()
        score = None if scores is None else float(scores[box.window][inside].mean())
        found.append(SegmentedObject(index, box, inside, area, (row, column), score))
    return found
