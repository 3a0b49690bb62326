"""Pixel accuracy and mean IoU on the VOC subset, computed independently of the package."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

VOID, CLASSES = 255, 21


def validation_images(shared: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields image and label of the subset's 112 validation images."""
    folder = shared / "data" / "voc2012"
    for name in (folder / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
        with Image.open(folder / "JPEGImages" / f"{name}.jpg") as image:
            pixels = np.array(image.convert("RGB"))
        with Image.open(folder / "SegmentationClass" / f"{name}.png") as label:
            yield pixels, np.array(label)


def scores(shared: Path, predict: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Returns pixel accuracy and mean IoU over the classes in truth or prediction."""
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    for image, label in validation_images(shared):
        prediction = predict(image)
        known = label != VOID
        np.add.at(confusion, (label[known], prediction[known]), 1)
    hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return hits.sum() / confusion.sum(), np.mean(hits[union > 0] / union[union > 0])
