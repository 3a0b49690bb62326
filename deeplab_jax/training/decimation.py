"""Narrow fully connected layers cut out of VGG-16's own: how DeepLab v1 and v2 begin on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError

Path = tuple[str, ...]
# Where a converted VGG-16 has its fully connected layers.
SOURCE = ("params", "large_fov")
FULLY_CONNECTED = ("fc6", "fc7")


def decimated(
    given: Mapping[Path, np.ndarray], wanted: Mapping[Path, Any], seed: int = 0
) -> dict[Path, np.ndarray]:
    """Returns arrays in which every wanted fc6 and fc7 is cut out of VGG-16's.

    Kernels keep evenly spaced rows and columns, their corners among them (3×3 of 7×7: every third);
    narrower layers keep filters drawn at random, and fc7 those of its inputs that fc6 kept. All
    branches of ASPP begin alike.

    Args:
      given: VGG-16's arrays by path.
      wanted: arrays of the network to train by path; their shapes are looked at.
      seed: of the draw.

    Raises:
      DeepLabError: the given ones lack fc6 and fc7, or theirs are smaller.

    Source: DeepLab v1, section 3.2; which rows, columns and filters it does not tell.
    """
    cut = {path: array for path, array in given.items() if path[:2] != SOURCE}
    for path, array in wanted.items():
        if is_fully_connected(path):
            source = (*SOURCE, *path[-2:])
            if source not in given:
                raise DeepLabError(f"there is no VGG-16 to decimate: {'/'.join(source)} is missing")
            cut[path] = _cut(given[source], array.shape, path[-2], seed)
    return cut


def is_fully_connected(path: Path) -> bool:
    """Returns whether an array belongs to fc6 or fc7."""
    return len(path) > 3 and path[-2] in FULLY_CONNECTED


def _cut(array: np.ndarray, shape: tuple[int, ...], layer: str, seed: int) -> np.ndarray:
    if len(shape) != array.ndim or np.any(np.array(shape) > array.shape):
        raise DeepLabError(
            f"{layer} of shape {list(shape)} cannot be cut out of {list(array.shape)}; give "
            "model.fov, model.fc_channels or training.init_parts=backbone"
        )
    for axis, (size, kept) in enumerate(zip(array.shape, shape, strict=True)):
        array = np.take(array, _positions(size, kept, axis, array.ndim, layer, seed), axis)
    return array


def _positions(size: int, kept: int, axis: int, num_axes: int, layer: str, seed: int) -> np.ndarray:
    """Returns what is kept of an axis."""
    if axis < num_axes - 2:
        return np.rint(np.linspace(0, size - 1, kept)).astype(int)
    number = FULLY_CONNECTED.index(layer)
    # The inputs of a layer are what the layer before it kept of its filters.
    drawn_by = number if axis == num_axes - 1 else number - 1
    random = np.random.default_rng((seed, drawn_by + 1))
    return np.sort(random.permutation(size)[:kept])
