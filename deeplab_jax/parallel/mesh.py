"""The mesh of devices: `data` splits the batch, `space` the rows of each image."""

import contextlib
import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError

DATA_AXIS, SPACE_AXIS = "data", "space"
# As many as there are.
REST = -1


def make_mesh(
    devices: Sequence[jax.Device] | None = None, *, data: int = REST, space: int = 1
) -> Mesh:
    """Returns a mesh of the axes `data` and `space`.

    Devices stay in the order of their processes: a process then has neighbouring rows of one image,
    and a contiguous part of the batch, whatever the mesh.

    Args:
      devices: to use, of this job or of a topology that is compiled for; default: all of the job.
      data: devices, or groups of `space`, that the batch is split over; −1: as many as there are.
      space: devices that the rows of each image are split over.

    Raises:
      DeepLabError: the devices do not make such a mesh; names meshes that they make.
    """
    devices = jax.devices() if devices is None else list(devices)
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    count = len(devices)
    if space < 1 or count % space or data not in (REST, count // space):
        raise DeepLabError(
            f"parallel.data={data} × parallel.spatial={space} is no mesh of {count} devices; legal "
            f"(data × spatial): {', '.join(_legal_meshes(count))}, or data=-1 for all the rest"
        )
    _check_processes(devices, space)
    grid = np.asarray(devices).reshape(count // space, space)
    # Explicit axes, JAX's other kind, would ask every operation of a network how it is split.
    return Mesh(grid, (DATA_AXIS, SPACE_AXIS), axis_types=(AxisType.Auto,) * 2)


def _legal_meshes(count: int) -> list[str]:
    return [f"{count // space}×{space}" for space in range(1, count + 1) if count % space == 0]


def _check_processes(devices: Sequence[jax.Device], space: int) -> None:
    """Checks that no process has part of two groups that it shares with others."""
    sizes = {
        len(list(group))
        for _, group in itertools.groupby(devices, key=lambda device: device.process_index)
    }
    if len(sizes) > 1 or any(size % space and space % size for size in sizes):
        raise DeepLabError(
            f"parallel.spatial={space} does not go with processes of "
            f"{', '.join(map(str, sorted(sizes)))} devices; give a divisor or a multiple of the "
            "devices of a process, the same number for each"
        )


def data_size(mesh: Mesh) -> int:
    """Returns how many parts a batch is split into."""
    return mesh.shape[DATA_AXIS]


def space_size(mesh: Mesh) -> int:
    """Returns how many parts the rows of an image are split into."""
    return mesh.shape[SPACE_AXIS]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over `data`, and no rows."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over `data` and the second over `space`."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS, SPACE_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that gives every device the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def check_divisible(batch_size: int, mesh: Mesh, field: str = "batch_size") -> None:
    """Checks that every part of the mesh's `data` axis gets the same number of examples.

    Raises:
      DeepLabError: it does not; names the nearest sizes that would.
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
    """Returns the context in which a network is applied for the devices of a mesh.

    Args:
      mesh: of the devices; None, or one device: operations are chosen as for one device.
    """
    if mesh is None or mesh.size == 1:
        return contextlib.nullcontext()
    if space_size(mesh) == 1:
        return ops.dispatching(batch_sharded_on=mesh.devices.flat[0].platform)
    return ops.dispatching(rows_sharded=row_sharding(mesh))
