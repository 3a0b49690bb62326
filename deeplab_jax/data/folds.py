"""Subsets of a dataset: folds of cross-validation, and oversampled classes."""

import concurrent.futures
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab_jax.data.datasets import Dataset, Example, fingerprint
from deeplab_jax.errors import DeepLabError, unknown_name


class Subset:
    """Some of a dataset's examples, in their own order."""

    def __init__(self, dataset: Dataset, positions: np.ndarray, split: str) -> None:
        """Selects positions without reading an example.

        Args:
          dataset: dataset to select from.
          positions: int [N], positions of the examples in it.
          split: name of the selection in reports.
        """
        self._dataset, self._positions = dataset, positions
        self.name, self.split, self.descriptor = dataset.name, split, dataset.descriptor

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[int(self._positions[index])]

    def content(self) -> Iterator[bytes]:
        """Yields bytes that identify the examples: their positions and the dataset's content."""
        yield self._positions.astype("<i8").tobytes()
        yield bytes.fromhex(fingerprint(self._dataset)["content"])

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every example, int32 [num_images, 2]."""
        return self._dataset.image_sizes()[self._positions]


def evenly_spaced(dataset: Dataset, limit: int) -> Subset:
    """Returns at most `limit` evenly spaced examples of a dataset.

    The files of a dataset are often sorted, so that its first images are similar.
    """
    count = min(limit, len(dataset))
    return Subset(dataset, np.arange(count) * len(dataset) // count, dataset.split)


def folds(dataset: Dataset, count: int, seed: int) -> Iterator[tuple[Subset, Subset]]:
    """Yields the training part and the validation part of each fold.

    Every example is in the validation part of exactly one fold. The parts differ by at most one
    example in size and are a function of the seed alone.

    Args:
      dataset: dataset to divide.
      count: number of folds.
      seed: seed of the order in which the examples are distributed.

    Raises:
      DeepLabError: the dataset has fewer images than folds, or `count` is below 2.
    """
    if not 2 <= count <= len(dataset):
        raise DeepLabError(
            f"{dataset.name}/{dataset.split} with {len(dataset)} images cannot have {count} folds; "
            f"legal: 2 to {len(dataset)}"
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
    """Returns the dataset with a second copy of every image that holds one of the classes.

    The copies follow all other examples, so that the examples of a step remain a function of seed
    and step. Every label is read once to find them.

    Args:
      dataset: any dataset.
      class_names: names of the rare classes.

    Raises:
      DeepLabError: the dataset has no such class.
    """
    legal = dataset.descriptor.class_names
    for name in class_names:
        if name not in legal:
            raise unknown_name(f"class of {dataset.name} in data.oversample_classes", name, legal)
    rare = np.array([legal.index(name) for name in class_names])
    # Decoding releases the GIL, so that threads use all cores.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        holds = threads.map(
            lambda index: np.isin(rare, dataset[index]["label"]).any(), range(len(dataset))
        )
        again = [index for index, held in enumerate(holds) if held]
    positions = np.array([*range(len(dataset)), *again])
    return Subset(dataset, positions, dataset.split)
