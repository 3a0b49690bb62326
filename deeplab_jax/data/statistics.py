"""Computes statistics of a split: sizes of images, pixels per class, and class weights."""

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.labels import void_label


class StatisticsCounter:
    """Computes the statistics of a split, from one label at a time."""

    def __init__(self, num_classes: int) -> None:
        self._class_pixels = np.zeros(num_classes, np.int64)
        self._pixels_where_present = np.zeros(num_classes, np.int64)
        self._void_pixels = 0
        self._void = void_label(num_classes)
        self._sizes: list[tuple[int, int]] = []

    def add(self, label: np.ndarray) -> None:
        """Adds a label, integers [H, W]; void is 255 for up to 255 classes, else 65535."""
        histogram = np.bincount(label.ravel(), minlength=self._void + 1)
        pixels = histogram[: len(self._class_pixels)]
        self._class_pixels += pixels
        self._pixels_where_present += np.where(pixels > 0, pixels.sum(), 0)
        self._void_pixels += int(histogram[self._void])
        self._sizes.append(label.shape)

    def result(self) -> "SplitStatistics":
        """Returns the statistics of all labels that were added."""
        by_area = sorted(self._sizes or [(0, 0)], key=math.prod)
        return SplitStatistics(
            len(self._sizes),
            (by_area[0], by_area[(len(by_area) - 1) // 2], by_area[-1]),
            tuple(self._class_pixels.tolist()),
            tuple(self._pixels_where_present.tolist()),
            self._void_pixels,
        )


# Squares are summed over blocks of this number of pixels, to limit memory.
BLOCK_PIXELS = 1 << 20
# Significant digits of means and standard deviations.
DIGITS = 7


class BandCounter:
    """Computes mean and standard deviation of each band over all added images, from exact sums."""

    def __init__(self, count: int) -> None:
        """Starts with sums of zero for `count` bands."""
        self._number = 0
        self._sums, self._squares = [0] * count, [0] * count

    def add(self, image: np.ndarray) -> None:
        """Adds an image, uint8 or uint16 [H, W, C]."""
        pixels = image.reshape(-1, image.shape[-1])
        for first in range(0, len(pixels), BLOCK_PIXELS):
            values = pixels[first : first + BLOCK_PIXELS].astype(np.uint64)
            for totals, each in ((self._sums, values), (self._squares, values * values)):
                totals[:] = map(operator.add, totals, each.sum(axis=0).tolist())
        self._number += len(pixels)

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of each band, rounded to 7 significant digits.

        The standard deviation of a constant band is returned as 1 instead of 0, because the
        normalization of images divides by it.
        """
        means, deviations = [], []
        number = max(1, self._number)
        for total, squares in zip(self._sums, self._squares, strict=True):
            mean = total / number
            # The sums are integers, so the subtraction loses no digits.
            variance = (number * squares - total * total) / number**2
            means.append(float(f"{mean:.{DIGITS}g}"))
            deviations.append(float(f"{math.sqrt(variance):.{DIGITS}g}") or 1.0)
        return tuple(means), tuple(deviations)


@dataclasses.dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one split.

    Attributes:
      num_images: number of images in the split.
      sizes: (height, width) of three images: those with the fewest pixels, with the median number
        of pixels, and with the most pixels.
      class_pixels: number of pixels of each class.
      pixels_where_present: for each class, the number of non-void pixels in the images that
        contain it.
      void_pixels: number of void pixels.
    """

    num_images: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    class_pixels: tuple[int, ...]
    pixels_where_present: tuple[int, ...]
    void_pixels: int

    def class_weights(self) -> tuple[float | None, ...]:
        """Returns class weights by median-frequency balancing; None for classes without pixels.

        weight(c) = median(f) / f(c), where f(c) is the number of pixels of class c divided by the
        number of non-void pixels in the images that contain c.
        Source: Eigen and Fergus 2015 (arXiv:1411.4734), section 6.3.2.
        """
        frequency = [
            pixels / total if pixels else None
            for pixels, total in zip(self.class_pixels, self.pixels_where_present, strict=True)
        ]
        median = np.median([value for value in frequency if value] or [1.0])
        return tuple(value and float(median / value) for value in frequency)

    def to_json(self) -> dict[str, Any]:
        """Returns the statistics as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SplitStatistics":
        """Returns the statistics from the result of `to_json`."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists, "sizes": tuple(map(tuple, values["sizes"]))})
