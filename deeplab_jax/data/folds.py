"""Subsets of a data set: folds of cross-validation, and classes that are shown more often."""

import concurrent.futures
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab_jax.data.datasets import Dataset, Example, fingerprint
from deeplab_jax.errors import DeepLabError, unknown_name


class Subset:
    """Some of a data set's examples, in an order of their own."""

    def __init__(self, dataset: Dataset, positions: np.ndarray, split: str) -> None:
        """Keeps the positions; nothing is read.

        Args:
          dataset: to choose from.
          positions: int [N], of the examples in it.
          split: what reports call the choice.
        """
        self._dataset, self._positions = dataset, positions
        self.name, self.split, self.descriptor = dataset.name, split, dataset.descriptor

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[int(self._positions[index])]

    def content(self) -> Iterator[bytes]:
        """Yields what identifies the examples: their positions and the whole data set's content."""
        yield self._positions.astype("<i8").tobytes()
        yield bytes.fromhex(fingerprint(self._dataset)["content"])

    def image_sizes(self) -> np.ndarray:
        """Returns (height, width) of every example, int32 [num_images, 2]."""
        return self._dataset.image_sizes()[self._positions]


def evenly_spaced(dataset: Dataset, limit: int) -> Subset:
    """Returns at most `limit` evenly spaced examples of a data set.

    Files of a data set are often in an order, and its first images all alike.
    """
    count = min(limit, len(dataset))
    return Subset(dataset, np.arange(count) * len(dataset) // count, dataset.split)


def folds(dataset: Dataset, count: int, seed: int) -> Iterator[tuple[Subset, Subset]]:
    """Yields what to train on and what to validate on, fold by fold.

    Every example is in the validation part of exactly one fold; the parts differ by at most one
    example in size and are a function of the seed alone.

    Args:
      dataset: to divide.
      count: of folds.
      seed: of the order in which the examples are dealt out.

    Raises:
      DeepLabError: the data set has fewer images than folds, or `count` is below 2.
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
    """Returns the data set with every image that holds one of the classes a second time.

    The second ones come behind all others, so that which examples a step sees stays a function of
    seed and step. Every label is read once to find them.

    Args:
      dataset: of any kind.
      class_names: the rare classes.

    Raises:
      DeepLabError: the data set has no such class.
    """
    legal = dataset.descriptor.class_names
    for name in class_names:
        if name not in legal:
            raise unknown_name(f"class of {dataset.name} in data.oversample_classes", name, legal)
    rare = np.array([legal.index(name) for name in class_names])
    # Decoding lets go of Python's lock, so that threads use all cores.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        holds = threads.map(
            lambda index: np.isin(rare, dataset[index]["label"]).any(), range(len(dataset))
        )
        again = [index for index, held in enumerate(holds) if held]
    positions = np.array([*range(len(dataset)), *again])
    return Subset(dataset, positions, dataset.split)
