"""Images of rare classes come twice (DeepLab v3, section 4.3, bootstrapping on hard images)."""

import concurrent.futures
from collections.abc import Sequence

import numpy as np

from deeplab_jax.data.datasets import Dataset, Example
from deeplab_jax.errors import unknown_name


class Selection:
    """Some examples of a data set in a given order, perhaps more than once."""

    def __init__(self, dataset: Dataset, positions: Sequence[int]) -> None:
        """Keeps the data set and which positions of it these are."""
        self._dataset, self._positions = dataset, tuple(positions)
        self.name, self.split, self.descriptor = dataset.name, dataset.split, dataset.descriptor

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[self._positions[index]]

    def largest_size(self) -> tuple[int, int]:
        """Returns the largest height and the largest width among the images."""
        return self._dataset.largest_size()


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
            raise unknown_name(f"class of {dataset.name} in data.duplicate", name, legal)
    rare = np.array([legal.index(name) for name in class_names])
    # Decoding lets go of Python's lock, so that threads use all cores.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        holds = threads.map(
            lambda index: np.isin(rare, dataset[index]["label"]).any(), range(len(dataset))
        )
        again = [index for index, held in enumerate(holds) if held]
    return Selection(dataset, [*range(len(dataset)), *again])
