"""The mesh of devices: `data` splits the batch, `spatial` the rows of each image."""

import collections
import contextlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError

DATA_AXIS, SPATIAL_AXIS = "data", "spatial"
# Number of devices along `data`: all that the other axis leaves.
REST = -1


def make_mesh(
    devices: Sequence[jax.Device] | None = None, *, data: int = REST, spatial: int = 1
) -> Mesh:
    """Returns a mesh of the axes `data` and `spatial`.

    Devices keep the order of their processes, so that each process has neighboring rows of an image
    and a contiguous part of the batch on every mesh.

    Args:
      devices: devices of this job or of a topology to compile for (default: all of the job).
      data: number of devices, or groups of `spatial`, that the batch is split over; −1: all.
      spatial: number of devices that the rows of each image are split over.

    Raises:
      DeepLabError: the devices do not form such a mesh; names the meshes that they form.
    """
    devices = jax.devices() if devices is None else list(devices)
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    count = len(devices)
    if spatial < 1 or count % spatial or data not in (REST, count // spatial):
        legal = ", ".join(f"{count // n}×{n}" for n in range(1, count + 1) if count % n == 0)
        raise DeepLabError(
            f"parallel.data={data} × parallel.spatial={spatial} is no mesh of {count} devices; "
            f"legal (data × spatial): {legal}, or data=-1 for all the rest"
        )
    sizes = set(collections.Counter(device.process_index for device in devices).values())
    # Otherwise a process would have part of two groups that it shares with other processes.
    if len(sizes) > 1 or any(size % spatial and spatial % size for size in sizes):
        raise DeepLabError(
            f"parallel.spatial={spatial} does not go with processes of "
            f"{', '.join(map(str, sorted(sizes)))} devices; give a divisor or a multiple of the "
            "devices of a process, the same number for each"
        )
    grid = np.asarray(devices).reshape(count // spatial, spatial)
    # Explicit axes, JAX's other kind, require a sharding at every operation of a network.
    return Mesh(grid, (DATA_AXIS, SPATIAL_AXIS), axis_types=(AxisType.Auto,) * 2)


def data_size(mesh: Mesh) -> int:
    """Returns the number of parts that a batch is split into."""
    return mesh.shape[DATA_AXIS]


def spatial_size(mesh: Mesh) -> int:
    """Returns the number of parts that the rows of an image are split into."""
    return mesh.shape[SPATIAL_AXIS]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over `data`, and no rows."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over `data` and the second over `spatial`."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS, SPATIAL_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def check_divisible(batch_size: int, mesh: Mesh, field: str = "batch_size") -> None:
    """Checks that every part of the mesh's `data` axis gets the same number of examples.

    Raises:
      DeepLabError: the batch size is not divisible; names the nearest sizes that are.
    """
    parts = data_size(mesh)
    if batch_size < 1 or batch_size % parts:
        lower = max(batch_size, 0) // parts * parts
        legal = [str(size) for size in (lower, lower + parts) if size > 0]
        raise DeepLabError(
            f"{field}={batch_size} does not divide by the mesh's {parts} parts of a batch (axis "
            f"`data`); nearest that do: {', '.join(legal)}"
        )


def sharded_over(mesh: Mesh | None) -> contextlib.AbstractContextManager[None]:
    """Returns the context in which a network is applied on the devices of a mesh.

    Args:
      mesh: the devices; with None or one device, operations are chosen as for one device.
    """
    if mesh is None or mesh.size == 1:
        return contextlib.nullcontext()
    if spatial_size(mesh) == 1:
        return ops.dispatching(batch_sharded_on=mesh.devices.flat[0].platform)
    return ops.dispatching(rows_sharded=row_sharding(mesh))
