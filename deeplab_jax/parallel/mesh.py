"""The mesh of devices and the two shardings that data-parallel training needs."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeplab_jax.errors import DeepLabError

DATA_AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of one axis, `data`, over the devices (default: all of the job)."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (DATA_AXIS,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def check_divisible(batch_size: int, mesh: Mesh, field: str = "batch_size") -> None:
    """Checks that every device gets the same number of examples.

    Raises:
      DeepLabError: it does not; names the nearest sizes that would.
    """
    devices = mesh.size
    if batch_size < 1 or batch_size % devices:
        lower = max(batch_size, 0) // devices * devices
        legal = [str(size) for size in (lower, lower + devices) if size > 0]
        raise DeepLabError(
            f"{field}={batch_size} is not divisible by the {devices} devices; "
            f"nearest that are: {', '.join(legal)}"
        )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns global arrays, split over the mesh, from this process's share of a batch.

    Args:
      batch: NumPy arrays whose first axis is the examples of this process.
      mesh: over whose devices the batch is split.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
