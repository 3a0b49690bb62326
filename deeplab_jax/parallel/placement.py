"""Arrays, parameters and optimizer state on the devices of the job."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from deeplab_jax.parallel.mesh import DATA_AXIS, batch_sharding, data_size, replicated


@dataclasses.dataclass(frozen=True)
class DataShare:
    """Contiguous part of each global batch that a process reads.

    Attributes:
      index: index of the part, from 0.
      count: number of parts.
      counts: whether this process is the one whose results of the part count: processes that split
        the rows of the same images read the same part.
    """

    index: int
    count: int
    counts: bool


def data_share(mesh: Mesh) -> DataShare:
    """Returns this process's part of each batch."""
    rows = {
        process: sorted({row for row, line in enumerate(mesh.devices) if process in _of(line)})
        for process in sorted(_of(mesh.devices.flat))
    }
    mine = rows[jax.process_index()]
    sharing = [process for process, its in rows.items() if its == mine]
    index, count = mine[0] // len(mine), data_size(mesh) // len(mine)
    return DataShare(index, count, counts=sharing[0] == jax.process_index())


def _of(devices: Any) -> set[int]:
    return {device.process_index for device in devices}


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns global arrays, split over the mesh's `data`, from this process's share of a batch.

    Args:
      batch: NumPy arrays whose first axis holds the examples of this process; see `data_share`.
      mesh: devices that the batch is split over.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def place(tree: Any, shardings: Any) -> Any:
    """Returns a tree of arrays in other shardings.

    Args:
      tree: tree of global JAX arrays, or of arrays that have the same values in every process.
      shardings: one sharding for all, or a tree of shardings.
    """
    if isinstance(shardings, Sharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    return jax.tree.map(_place, tree, shardings)


def _place(array: Any, sharding: Sharding) -> jax.Array:
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return _moved(array, sharding)
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _moved(array: jax.Array, sharding: Sharding) -> jax.Array:
    if array.sharding.is_equivalent_to(sharding, array.ndim):
        return array
    return jax.jit(lambda same: same, out_shardings=sharding)(array)


def rows_of_this_process(array: jax.Array) -> np.ndarray:
    """Returns the rows of a global array on the devices of this process, without copies."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def state_shardings(shapes: Any, mesh: Mesh, *, fsdp: bool = False) -> Any:
    """Returns the sharding of every array of a state.

    With `fsdp` each kernel, and what the optimizer keeps of it, is split over `data` along its
    longest axis that divides; scales, offsets and statistics, which are small, stay whole.

    Args:
      shapes: tree of what has a shape.
      mesh: of the devices.
      fsdp: split kernels.

    Source: ZeRO (arXiv 1910.02054), stage 3.
    """
    whole, parts = replicated(mesh), data_size(mesh)

    def sharding(leaf: Any) -> NamedSharding:
        axis = _split_axis(leaf.shape, parts) if fsdp else None
        if axis is None:
            return whole
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))

    return jax.tree.map(sharding, shapes)


def _split_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """Returns the longest axis that divides into the parts; None where there is none to split."""
    if len(shape) < 2 or parts == 1:
        return None
    dividing = [axis for axis, length in enumerate(shape) if length and length % parts == 0]
    # The last of equal ones, which are the output channels.
    return max(dividing, key=lambda axis: (shape[axis], axis), default=None)
