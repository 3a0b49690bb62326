"""Device mesh: the axis `data` shards the batch, the axis `spatial` the rows of each image."""

import collections
import contextlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError

DATA_AXIS, SPATIAL_AXIS = "data", "spatial"
# Value of `data` in `make_mesh` for which the mesh uses all devices.
REST = -1


def make_mesh(
    devices: Sequence[jax.Device] | None = None, *, data: int = REST, spatial: int = 1
) -> Mesh:
    """Returns a device mesh with the axes `data` and `spatial`.

    Devices are ordered by process, so that each process has a contiguous part of the batch and
    neighboring rows of each image.

    Args:
      devices: devices of the mesh, either of this job or of a topology to compile for (default: all
        devices of this job).
      data: number of shards of the batch; −1: the number of devices divided by `spatial`. Each
        shard is on `spatial` devices.
      spatial: number of devices over which the rows of each image are sharded.

    Raises:
      DeepLabError: data × spatial is not the number of devices, the processes have different
        numbers of devices, or `spatial` is neither a divisor nor a multiple of the number of
        devices per process. The message states the legal values.
    """
    devices = jax.devices() if devices is None else list(devices)
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    count = len(devices)
    if spatial < 1 or count % spatial or data not in (REST, count // spatial):
        legal = ", ".join(f"{count // n}×{n}" for n in range(1, count + 1) if count % n == 0)
        raise DeepLabError(
            f"parallel.data={data} × parallel.spatial={spatial} does not match {count} devices; "
            f"legal values of data × spatial: {legal}; data=-1 uses all devices"
        )
    sizes = set(collections.Counter(device.process_index for device in devices).values())
    # Otherwise, one process would store all rows of some images and only a part of the rows of
    # others, and the processes could not read equal parts of the batch.
    if len(sizes) > 1 or any(size % spatial and spatial % size for size in sizes):
        raise DeepLabError(
            f"parallel.spatial={spatial} must be a divisor or a multiple of the number of devices "
            "per process, which must be equal for all processes; got processes with "
            f"{', '.join(map(str, sorted(sizes)))} devices"
        )
    grid = np.asarray(devices).reshape(count // spatial, spatial)
    # The axes are `Auto`, because `Explicit` axes require a sharding for every operation.
    return Mesh(grid, (DATA_AXIS, SPATIAL_AXIS), axis_types=(AxisType.Auto,) * 2)


def data_size(mesh: Mesh) -> int:
    """Returns the size of the `data` axis, the number of shards of a batch."""
    return mesh.shape[DATA_AXIS]


def spatial_size(mesh: Mesh) -> int:
    """Returns the size of the `spatial` axis, the number of shards of the rows of an image."""
    return mesh.shape[SPATIAL_AXIS]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch over `data`; the rows of each image are not sharded."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch over `data`, with image rows sharded over `spatial`."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS, SPATIAL_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_divisible(batch_size: int, mesh: Mesh, field: str = "batch_size") -> None:
    """Checks that a batch size is divisible by the size of the `data` axis.

    Args:
      batch_size: number of examples per batch, across all devices.
      mesh: device mesh.
      field: name of the batch size in the error message.

    Raises:
      DeepLabError: the batch size is not a multiple of the size of the `data` axis. The message
        lists the nearest legal values.
    """
    parts = data_size(mesh)
    if batch_size < 1 or batch_size % parts:
        lower = max(batch_size, 0) // parts * parts
        legal = [str(size) for size in (lower, lower + parts) if size > 0]
        raise DeepLabError(
            f"{field}={batch_size} is not divisible by {parts}, the size of the mesh axis `data`; "
            f"nearest legal values: {', '.join(legal)}"
        )


def sharded_over(mesh: Mesh | None) -> contextlib.AbstractContextManager[None]:
    """Returns a context manager, within which operations are traced for the devices of a mesh.

    The mesh determines the implementation of each operation; see `ops.Dispatch`.

    Args:
      mesh: device mesh; None: one device.
    """
    if mesh is None or mesh.size == 1:
        return contextlib.nullcontext()
    if spatial_size(mesh) == 1:
        return ops.dispatching(batch_sharded_on=mesh.devices.flat[0].platform)
    return ops.dispatching(rows_sharded=row_sharding(mesh))
