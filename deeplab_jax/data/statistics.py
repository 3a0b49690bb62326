"""Statistics of a split: number and sizes of its images, pixels a class, weights for the loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.labels import void_label


class StatisticsCounter:
    """Counts labels one by one."""

    def __init__(self, num_classes: int) -> None:
        self._class_pixels = np.zeros(num_classes, np.int64)
        self._pixels_where_present = np.zeros(num_classes, np.int64)
        self._void_pixels = 0
        self._void = void_label(num_classes)
        self._sizes: list[tuple[int, int]] = []

    def add(self, label: np.ndarray) -> None:
        """Counts a label, integers [H, W] of classes and `void_label(num_classes)`."""
        histogram = np.bincount(label.ravel(), minlength=self._void + 1)
        pixels = histogram[: len(self._class_pixels)]
        self._class_pixels += pixels
        self._pixels_where_present += np.where(pixels > 0, pixels.sum(), 0)
        self._void_pixels += int(histogram[self._void])
        self._sizes.append(label.shape)

    def result(self) -> "SplitStatistics":
        """Returns the statistics so far."""
        sizes = np.array(self._sizes or [(0, 0)])
        order = np.argsort(sizes.prod(1), kind="stable")
        smallest, median, largest = (
            tuple(sizes[order[at]].tolist()) for at in (0, (len(order) - 1) // 2, -1)
        )
        return SplitStatistics(
            len(self._sizes),
            (smallest, median, largest),
            tuple(self._class_pixels.tolist()),
            tuple(self._pixels_where_present.tolist()),
            self._void_pixels,
        )


@dataclasses.dataclass(frozen=True)
class SplitStatistics:
    """Statistics of one split.

    Attributes:
      num_images: in the split.
      sizes: (height, width) of the image with the fewest, the median and the most pixels.
      class_pixels: pixels a class.
      pixels_where_present: labelled pixels of the images that hold the class.
      void_pixels: pixels that are no class.
    """

    num_images: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    class_pixels: tuple[int, ...]
    pixels_where_present: tuple[int, ...]
    void_pixels: int

    def class_weights(self) -> tuple[float | None, ...]:
        """Returns median-frequency weights, None for classes that never occur.

        weight(c) = median(f) / f(c), f(c) = pixels of c / pixels of the images that hold c.
        Source: Eigen and Fergus 2015 (arXiv:1411.4734), section 6.3.2.
        """
        pixels = np.array(self.class_pixels, np.float64)
        present = pixels > 0
        if not present.any():
            return (None,) * len(pixels)
        frequency = pixels[present] / np.array(self.pixels_where_present)[present]
        weights = np.full(len(pixels), np.nan)
        weights[present] = np.median(frequency) / frequency
        return tuple(None if np.isnan(weight) else float(weight) for weight in weights)

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SplitStatistics":
        """Returns what `to_json` gave away."""
        fields = dict(values, sizes=tuple(tuple(size) for size in values["sizes"]))
        for name in ("class_pixels", "pixels_where_present"):
            fields[name] = tuple(values[name])
        return cls(**fields)
