"""Images of rare classes come twice (DeepLab v3, section 4.3, bootstrapping on hard images)."""

import concurrent.futures
from collections.abc import Sequence

import numpy as np

from deeplab_jax.data.datasets import Dataset
from deeplab_jax.data.folds import Subset
from deeplab_jax.errors import unknown_name


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
    positions = np.array([*range(len(dataset)), *again])
    return Subset(dataset, positions, dataset.split)
