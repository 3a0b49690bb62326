"""Places batches, parameters and optimizer state on the devices of a job."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from deeplab_jax.parallel.mesh import DATA_AXIS, batch_sharding, data_size, replicated, split_axis


@dataclasses.dataclass(frozen=True)
class DataShare:
    """Contiguous part of each global batch that a process reads.

    Attributes:
      index: index of the part, from 0.
      count: number of parts.
      counts: whether sums over all processes include the results of this process. If the rows of an
        image are sharded over several processes, all of them read the same part of the batch, and
        `counts` is True for only one of them.
    """

    index: int
    count: int
    counts: bool


def data_share(mesh: Mesh) -> DataShare:
    """Returns the part of each global batch that this process reads."""
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
    """Builds the arrays of the global batch, sharded over the mesh axis `data`.

    Args:
      batch: arrays that contain, along the first axis, only the examples that this process has
        read; see `data_share`.
      mesh: device mesh.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }


def place(tree: Any, shardings: Any) -> Any:
    """Places a tree of arrays on devices with the given shardings.

    Args:
      tree: tree of global JAX arrays, or of arrays with the same values in every process.
      shardings: one sharding for all arrays, or a tree of shardings.
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
    """Returns the entries along the first axis of a global array that this process stores.

    Args:
      array: array that is sharded over its first axis only, such as the outputs for a batch.
    """
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def state_shardings(shapes: Any, mesh: Mesh, *, fsdp: bool = False) -> Any:
    """Returns the sharding of every array in a training state.

    With `fsdp`, each kernel with at least 2¹⁹ values and its optimizer state are sharded over the
    mesh axis `data`. The sharded axis of an array is its longest axis whose length is divisible by
    the size of `data`. All other arrays, such as smaller kernels, biases and the variables of batch
    normalization, are replicated; see `mesh.split_axis`.

    Args:
      shapes: tree of arrays or of their shapes (`jax.ShapeDtypeStruct`).
      mesh: device mesh.
      fsdp: whether to shard kernels (fully sharded data parallelism); if False, all arrays are
        replicated.

    Source: ZeRO (arXiv 1910.02054), stage 3.
    """
    whole, parts = replicated(mesh), data_size(mesh)

    def sharding(leaf: Any) -> NamedSharding:
        axis = split_axis(leaf.shape, parts) if fsdp else None
        if axis is None:
            return whole
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))

    return jax.tree.map(sharding, shapes)
