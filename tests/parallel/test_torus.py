"""Chips with neighboring rows of an image are neighbors on the torus, and processes stay whole."""

import dataclasses
import itertools

import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel.mesh import arrange_devices


@dataclasses.dataclass(frozen=True)
class Chip:
    """The attributes of a TPU device that determine its place in a mesh."""

    id: int
    process_index: int
    coords: tuple[int, int, int]
    slice_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0


def chips(shape, host, slices=1, kind="TPU v5 lite"):
    """Returns the chips of slices; `host` is the shape of the chips of one process."""
    found, numbers = [], {}
    for part, z, y, x in itertools.product(range(slices), *map(range, reversed(shape))):
        block = part, *(at // length for at, length in zip((x, y, z), host, strict=True))
        process = numbers.setdefault(block, len(numbers))
        found.append(Chip(len(found), process, (x, y, z), part, device_kind=kind))
    return found


def steps(grid):
    """Returns the distance on the torus, without wrapping, between neighbors in every row."""
    coordinates = np.array([[chip.coords for chip in row] for row in grid])
    return np.abs(np.diff(coordinates, axis=1)).sum(-1)


@pytest.mark.parametrize(
    ("shape", "host", "spatial"),
    [
        ((4, 4, 1), (2, 2, 1), 2),
        ((4, 4, 1), (2, 2, 1), 4),
        ((4, 4, 1), (4, 2, 1), 8),
        ((4, 2, 1), (4, 2, 1), 8),
        ((8, 8, 1), (2, 2, 1), 8),
        ((4, 4, 4), (2, 2, 1), 4),
        ((4, 4, 8), (2, 2, 1), 8),
        ((16, 16, 1), (4, 2, 1), 16),
    ],
)
@pytest.mark.parametrize("slices", [1, 3])
def test_rows_of_an_image_are_on_neighbors(shape, host, spatial, slices):
    kind = "TPU v5 lite" if shape[2] == 1 else "TPU v4"
    grid = arrange_devices(chips(shape, host, slices, kind), spatial)
    assert grid.shape == (slices * np.prod(shape) // spatial, spatial)
    assert len({chip.id for chip in grid.flat}) == grid.size
    assert (steps(grid) == 1).all()
    assert all(len({chip.slice_index for chip in row}) == 1 for row in grid)
    by_process = {}
    for number, row in enumerate(grid):
        for chip in row:
            by_process.setdefault(chip.process_index, set()).add(number)
    # Each process reads a contiguous part of the batch, alone or with others.
    for own in by_process.values():
        assert max(own) - min(own) + 1 == len(own)
        assert all(own == other or not own & other for other in by_process.values())


def test_rows_of_one_process_stay_in_it():
    grid = arrange_devices(chips((4, 4, 1), (2, 2, 1)), 4)
    assert [{chip.process_index for chip in row} for row in grid] == [{0}, {1}, {2}, {3}]


def test_rows_do_not_span_slices():
    with pytest.raises(
        DeepLabError,
        match=r"parallel.spatial=8 would .* slices; use slices of equal size, and set",
    ):
        arrange_devices(chips((2, 2, 1), (2, 2, 1), slices=2), 8)
