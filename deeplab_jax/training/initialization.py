"""Starting from the variables of another model."""

import pathlib

import numpy as np
from flax import traverse_util

from deeplab_jax import model_store
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.state import Variables

CLASSIFIER = "classifier"


def initialize_from(fresh: Variables, source: str, reporter: Reporter) -> Variables:
    """Returns the variables of another model, with a fresh classifier where its shape differs.

    Args:
      fresh: freshly initialised variables of the model to train; tells names and shapes.
      source: a workdir.
      reporter: hears which parts start afresh.

    Raises:
      DeepLabError: anything but the classifier is missing or of another shape.
    """
    given = traverse_util.flatten_dict(model_store.read_variables(pathlib.Path(source)))
    wanted = traverse_util.flatten_dict(fresh)
    afresh = [path for path in wanted if not _fits(given.get(path), wanted[path])]
    foreign = ["/".join(path) for path in afresh if CLASSIFIER not in path]
    if foreign:
        raise DeepLabError(
            f"training.init_from={source} holds another network: {len(foreign)} arrays are missing "
            f"or of another shape, the first {foreign[0]}; "
            "give config.model the architecture that it was trained with"
        )
    for path in afresh:
        there = "nothing" if path not in given else list(given[path].shape)
        reporter.message(
            f"{'/'.join(path)} starts afresh: {there} in {source}, {list(wanted[path].shape)} here"
        )
    taken = {path: array if path in afresh else given[path] for path, array in wanted.items()}
    return traverse_util.unflatten_dict(taken)


def _fits(given: np.ndarray | None, wanted: np.ndarray) -> bool:
    return given is not None and given.shape == wanted.shape
