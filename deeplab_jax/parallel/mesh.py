"""Device mesh with an axis `data` for sharding batches and an axis `spatial` for image rows."""

import collections
import contextlib
import functools
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError

DATA_AXIS, SPATIAL_AXIS = "data", "spatial"
# Value of `data` in `make_mesh` for which the mesh uses all devices.
REST = -1
# Minimum number of values of a kernel that is sharded (fully sharded data parallelism). The TPU
# compiler does not reduce-scatter smaller gradients: it all-reduces them, and would then gather the
# kernels in addition, which sends 1.5 times as many bytes as replicated kernels.
MIN_SHARDED_SIZE = 2**19


def make_mesh(
    devices: Sequence[jax.Device] | None = None, *, data: int = REST, spatial: int = 1
) -> Mesh:
    """Returns a device mesh with the axes `data` and `spatial`.

    The images of each process are a contiguous part of the batch. If possible, chips with
    neighboring rows of an image belong to the same process and are neighbors on the torus of a TPU
    slice. The axis `data` extends over all slices.

    Args:
      devices: devices of the mesh, either of this job or of a topology to compile for (default: all
        devices of this job).
      data: number of shards of the batch; −1: the number of devices divided by `spatial`. Each
        shard is on `spatial` devices.
      spatial: number of devices over which the rows of each image are sharded.

    Raises:
      DeepLabError: data × spatial is not the number of devices, the processes have different
        numbers of devices, `spatial` is neither a divisor nor a multiple of the number of devices
        per process, or the rows of an image would be sharded over several TPU slices. The message
        states the legal values.
    """
    devices = jax.devices() if devices is None else list(devices)
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
    grid = arrange_devices(devices, spatial)
    # The axes are `Auto`, because `Explicit` axes require a sharding for every operation.
    return Mesh(grid, (DATA_AXIS, SPATIAL_AXIS), axis_types=(AxisType.Auto,) * 2)


def arrange_devices(devices: Sequence[jax.Device], spatial: int) -> np.ndarray:
    """Returns an array of devices [data, spatial], one TPU slice after another.

    The devices in one row of the array store the rows of the same images.

    Args:
      devices: devices, the same number in each process.
      spatial: number of devices per row of the array. It must be a divisor or a multiple of the
        number of devices per process.

    Raises:
      DeepLabError: a row of the array would contain devices of several TPU slices.
    """
    slices = _slices(devices)
    sizes = sorted({len(each) for each in slices})
    if len(sizes) > 1 or sizes[0] % spatial:
        raise DeepLabError(
            f"parallel.spatial={spatial} would shard the rows of an image over several TPU slices; "
            "use slices of equal size, and set parallel.spatial to a divisor of their number of "
            f"chips; got slices with {', '.join(map(str, sizes))} chips"
        )
    return np.concatenate([_neighbors_in_rows(each, spatial) for each in slices])


def _slices(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Returns the devices of each TPU slice; devices other than TPUs count as one slice."""
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        number = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(number, []).append(device)
    return [slices[number] for number in sorted(slices)]


def _neighbors_in_rows(devices: Sequence[jax.Device], spatial: int) -> np.ndarray:
    """Returns an array [data, spatial] of the devices of a TPU slice.

    If each process has at least `spatial` chips, each row of the array contains chips of one
    process, and consecutive chips are neighbors on the torus. Otherwise, JAX assigns the axes of
    the array to axes of the torus. If JAX cannot do this, or if the images of a process would then
    not be a contiguous part of the batch, the chips are sorted by process. Devices other than TPUs
    are always sorted by process.
    """
    processes: dict[int, list[jax.Device]] = {}
    for device in devices:
        processes.setdefault(device.process_index, []).append(device)
    ordered = [device for number in sorted(processes) for device in _path(processes[number])]
    grid = np.asarray(ordered).reshape(-1, spatial)
    crossing = any(len({device.process_index for device in row}) > 1 for row in grid)
    if not crossing or devices[0].platform != "tpu":
        return grid
    try:
        torus = mesh_utils.create_device_mesh(grid.shape, ordered, allow_split_physical_axes=True)
    except (AssertionError, NotImplementedError, ValueError):
        return grid
    rows = sorted(torus, key=lambda row: sorted(device.process_index for device in row))
    return np.stack(rows) if _contiguous(rows) else grid


def _path(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Orders the chips of a process so that consecutive chips are neighbors.

    The order runs back and forth along x. After each line along x, it moves by one chip along y.
    After each plane, it moves by one chip along z. Devices other than TPUs are ordered by `id`.
    """
    if devices[0].platform != "tpu":
        return sorted(devices, key=lambda device: device.id)
    coordinates = [device.coords for device in devices]
    lowest = np.min(coordinates, axis=0)
    width, height, _ = np.max(coordinates, axis=0) - lowest + 1

    def place(device: jax.Device) -> tuple[int, ...]:
        x, y, z = device.coords - lowest
        row = y if z % 2 == 0 else height - 1 - y
        column = x if (z * height + row) % 2 == 0 else width - 1 - x
        return int(z), int(row), int(column), device.id

    return sorted(devices, key=place)


def _contiguous(rows: Sequence[np.ndarray]) -> bool:
    """Returns whether the images of each process are a contiguous part of the batch.

    The devices in one row store the same images. Therefore, the result is True if there is a number
    n such that every process has devices in exactly n consecutive rows, and the index of the first
    of these rows is a multiple of n.

    Args:
      rows: rows of an array of devices [data, spatial].
    """
    found: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        for process in {device.process_index for device in row}:
            found.setdefault(process, []).append(number)
    size = len(next(iter(found.values())))
    return all(
        len(own) == size and own[0] % size == 0 and own[-1] - own[0] == size - 1
        for own in found.values()
    )


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
      DeepLabError: the batch size is not a positive multiple of the size of the `data` axis. The
        message lists the nearest legal values.
    """
    parts = data_size(mesh)
    if batch_size < 1 or batch_size % parts:
        lower = max(batch_size, 0) // parts * parts
        legal = [str(size) for size in (lower, lower + parts) if size > 0]
        raise DeepLabError(
            f"{field}={batch_size} is not a positive multiple of {parts}, the size of the mesh "
            f"axis `data`; nearest legal values: {', '.join(legal)}"
        )


def sharded_over(
    mesh: Mesh | None, *, fsdp: bool = False
) -> contextlib.AbstractContextManager[None]:
    """Returns a context manager in which operations are traced for the devices of a mesh.

    The mesh determines the implementation of each operation; see `ops.Dispatch`.

    Args:
      mesh: device mesh; None: one device.
      fsdp: whether kernels are sharded; see `state_shardings`.
    """
    if mesh is None:
        return contextlib.nullcontext()
    platform = mesh.devices.flat[0].platform
    if mesh.size == 1:
        return ops.dispatching(platform=platform)
    axis_of = functools.partial(split_axis, parts=data_size(mesh))
    shards = ops.KernelShards(row_sharding(mesh), axis_of) if fsdp else None
    if spatial_size(mesh) == 1:
        return ops.dispatching(platform=platform, batch_sharded=True, kernel_shards=shards)
    return ops.dispatching(rows_sharded=row_sharding(mesh), kernel_shards=shards)


def split_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """Returns the index of the longest axis whose length is divisible by `parts`.

    The result is None if there is no such axis, if the array has fewer than two axes or fewer than
    `MIN_SHARDED_SIZE` values, or if `parts` is 1. The array is then replicated.
    """
    if len(shape) < 2 or math.prod(shape) < MIN_SHARDED_SIZE or parts == 1:
        return None
    dividing = [axis for axis, length in enumerate(shape) if length and length % parts == 0]
    # If several axes have this length, the last of them is chosen, the output channels.
    return max(dividing, key=lambda axis: (shape[axis], axis), default=None)
