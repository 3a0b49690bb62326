"""Subsets of a dataset: folds for cross-validation, and oversampling of rare classes."""

import concurrent.futures
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab_jax.data.datasets import Dataset, Example, fingerprint
from deeplab_jax.errors import DeepLabError, check_name


class Subset:
    """Dataset of selected examples of another dataset, in a given order."""

    def __init__(self, dataset: Dataset, positions: np.ndarray, split: str) -> None:
        """Selects examples without reading them.

        Args:
          dataset: dataset to select from.
          positions: int [N], positions of the examples in `dataset`.
          split: name of the subset in reports.
        """
        self._dataset, self._positions = dataset, positions
        self.name, self.split, self.descriptor = dataset.name, split, dataset.descriptor

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[int(self._positions[index])]

    def content(self) -> Iterator[bytes]:
        """Yields bytes that identify the examples.

        The bytes are the digest of the dataset from which the examples were selected, and the
        positions of the examples in it.
        """
        yield self._positions.astype("<i8").tobytes()
        yield bytes.fromhex(fingerprint(self._dataset)["content"])

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every example, int32 [num_images, 2]."""
        return self._dataset.image_sizes()[self._positions]


def evenly_spaced(dataset: Dataset, limit: int) -> Subset:
    """Returns a subset of up to `limit` evenly spaced examples.

    Evenly spaced examples vary more than the first `limit` examples: files are sorted, so neighbors
    are often similar.
    """
    count = min(limit, len(dataset))
    return Subset(dataset, np.arange(count) * len(dataset) // count, dataset.split)


def folds(dataset: Dataset, count: int, seed: int) -> Iterator[tuple[Subset, Subset]]:
    """Yields (training subset, validation subset) for each fold of a cross-validation.

    Every example is in the validation subset of exactly one fold. The sizes of the validation
    subsets differ by at most one example. The division depends only on the number of examples,
    `count` and `seed`.

    Args:
      dataset: dataset to divide.
      count: number of folds.
      seed: random seed of the division.

    Raises:
      DeepLabError: the dataset has fewer images than folds, or `count` is below 2.
    """
    if not 2 <= count <= len(dataset):
        legal = f"give 2 to {len(dataset)}" if len(dataset) > 1 else "give at least 2 images"
        raise DeepLabError(
            f"{dataset.name}/{dataset.split} cannot be divided into {count} folds (number of "
            f"images: {len(dataset)}); {legal}"
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    parts = np.array_split(order, count)
    for number, part in enumerate(parts, start=1):
        others = np.concatenate([other for other in parts if other is not part])
        label = f"{dataset.split}, fold {number} of {count}"
        yield (
            Subset(dataset, np.sort(others), f"{label}, without"),
            Subset(dataset, np.sort(part), label),
        )


def duplicated(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """Returns a dataset in which every image that contains a rare class appears twice.

    The second copies come after all originals. Every label is read once to find the images that
    contain rare classes.

    Args:
      dataset: dataset in which every image appears once.
      class_names: names of the rare classes.

    Raises:
      DeepLabError: a name is not that of a class of the dataset.
    """
    legal = dataset.descriptor.class_names
    for name in class_names:
        check_name(f"class of {dataset.name} in data.oversample_classes", name, legal)
    rare = np.array([legal.index(name) for name in class_names])
    # Decoding releases the GIL, so threads use all cores.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        holds = threads.map(
            lambda index: np.isin(rare, dataset[index]["label"]).any(), range(len(dataset))
        )
        again = [index for index, held in enumerate(holds) if held]
    positions = np.array([*range(len(dataset)), *again])
    return Subset(dataset, positions, dataset.split)
