"""Real images for those that measure ranges: quantisation here, int8 TFLite files."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from deeplab_jax.data import Dataset, evaluation_batches
from deeplab_jax.inference.padding import Size, padded_size
from deeplab_jax.models import DeepLab
from deeplab_jax.reporter import Reporter


def unrolled(model: DeepLab) -> DeepLab:
    """Returns a network without loops over units, in which every layer has a path of its own."""
    return model.clone(architecture=dataclasses.replace(model.architecture, scan_units=False))


class EvenlySpread:
    """So many examples of a data set, at even distances; a data set itself.

    Files of a data set are often in an order, and its first images all alike.
    """

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self._dataset = dataset
        self._count = min(limit, len(dataset))
        self.name, self.split = dataset.name, dataset.split
        self.descriptor = dataset.descriptor

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict:
        return self._dataset[index * len(self._dataset) // self._count]

    def largest_size(self) -> Size:
        """Returns the largest height and width among all images of the data set."""
        return self._dataset.largest_size()

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every chosen image, int32 [num_images, 2]."""
        sizes = self._dataset.image_sizes()
        return sizes[[index * len(sizes) // self._count for index in range(self._count)]]


def calibration_images(
    dataset: Dataset,
    model: DeepLab,
    *,
    limit: int = 32,
    size: Size | None = None,
    reporter: Reporter | None = None,
) -> Iterator[np.ndarray]:
    """Yields images of one size that suits a network, one at a time.

    Args:
      dataset: whose images are taken, evenly spread.
      model: decides the legal sizes.
      limit: at most so many.
      size: (H, W) to pad to, rounded up to what suits the network; default: of the largest image.
      reporter: hears of progress.

    Yields:
      uint8 [1, H, W, 3].
    """
    chosen = EvenlySpread(dataset, limit)
    size = padded_size(model, size or dataset.largest_size(), None)
    batches = evaluation_batches(chosen, size, batch_size=1, fill=model.architecture.mean_pixel)
    for batch in (reporter or Reporter()).track(batches, "calibrating, image", len(chosen)):
        yield batch["image"]
