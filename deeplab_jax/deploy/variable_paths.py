"""Variables by the path of their module."""

from typing import Any

import numpy as np
from flax import traverse_util

Path = tuple[str, ...]
Flat = dict[Path, np.ndarray]


def by_path(tree: Any) -> Flat:
    """Returns the leaves by path; a module's name such as `block1/unit_1` is two steps of it."""
    flat = traverse_util.flatten_dict(tree)
    return {tuple("/".join(path).split("/")): leaf for path, leaf in flat.items()}


def nested(flat: Flat, like: Any) -> dict[str, Any]:
    """Returns leaves by path as a tree of the same structure as another."""
    paths = traverse_util.flatten_dict(like)
    return traverse_util.unflatten_dict(
        {path: flat[tuple("/".join(path).split("/"))] for path in paths}
    )
