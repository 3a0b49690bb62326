"""Exchange of map rows between devices for operations on maps whose rows are sharded."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from deeplab_jax.arrays import Array, Float
from deeplab_jax.ops.xla_convolution import Window


@dataclasses.dataclass(frozen=True)
class RowBlocks:
    """Rows of a map that the devices along a mesh axis need, one block of rows per device.

    Attributes:
      axis: name of the mesh axis over which the rows are sharded.
      own: number of rows that each device stores.
      count: number of rows of the map. If the devices together store more rows, the rows after the
        end of the map are zeros.
      starts: index of the first row in the block of each device. It can be negative; rows outside
        the map are zeros.
      length: number of rows in a block.
    """

    axis: str
    own: int
    count: int
    starts: tuple[int, ...]
    length: int

    @property
    def padding(self) -> int:
        """Number of rows to add to the map, so that each device stores `own` rows."""
        return self.own * len(self.starts) - self.count

    @property
    def halo(self) -> tuple[int, int]:
        """Maximum numbers of rows that a device needs from the devices before and after it."""
        before = after = 0
        for device, start in enumerate(self.starts):
            first, end = max(start, 0), min(start + self.length, self.count)
            if first < end:
                before = max(before, device * self.own - first)
                after = max(after, end - (device + 1) * self.own)
        return before, after

    def collect(self, own: Float[Array, "N S W C"]) -> Float[Array, "N R W C"]:
        """Receives rows of other devices, and returns the block of rows that this device needs.

        This method must be called on every device.

        Args:
          own: rows that this device stores.
        """
        before, after = self.halo
        received = [*self._rows_before(own, before), own, *self._rows_after(own, after)]
        rows = jnp.concatenate(received, axis=1)
        offsets = [start - device * self.own + before for device, start in enumerate(self.starts)]
        return take_rows(rows, offsets, self.length, self.axis)

    def take(self, collected: Float[Array, "N S W C"]) -> Float[Array, "N R W C"]:
        """Returns the block of rows that this device needs, without receiving further rows.

        This method must be called on every device.

        Args:
          collected: shard of `HaloMaps.collected` on this device: its own rows and copies of
            neighboring rows. The number of copies before its own rows equals the number after them.
        """
        halo = (collected.shape[1] - self.own) // 2
        offsets = [start - device * self.own + halo for device, start in enumerate(self.starts)]
        return take_rows(collected, offsets, self.length, self.axis)

    def _rows_before(self, own: jax.Array, count: int) -> list[jax.Array]:
        """Returns the `count` rows before those of this device, as one array per sending device."""
        parts = []
        for hop in range(1, -(-count // self.own) + 1):
            rows = min(self.own, count - (hop - 1) * self.own)
            parts.append(self._from(own[:, self.own - rows :], -hop))
        return parts[::-1]

    def _rows_after(self, own: jax.Array, count: int) -> list[jax.Array]:
        """Returns the `count` rows after those of this device, as one array per sending device."""
        parts = []
        for hop in range(1, -(-count // self.own) + 1):
            rows = min(self.own, count - (hop - 1) * self.own)
            parts.append(self._from(own[:, :rows], hop))
        return parts

    def _from(self, rows: jax.Array, distance: int) -> jax.Array:
        """Returns `rows` of the device at index (this device's index + `distance`).

        The result is zeros if there is no such device.
        """
        devices = range(len(self.starts))
        pairs = [(one + distance, one) for one in devices if one + distance in devices]
        return lax.ppermute(rows, self.axis, pairs)


def input_blocks(axis: str, parts: int, rows: int, count: int, window: Window) -> RowBlocks:
    """Returns the input rows that each device needs to compute its output rows of an operation.

    Args:
      axis, parts: name and size of the mesh axis over which rows are sharded.
      rows: number of rows of the whole input, on all devices together.
      count: number of rows of the whole output, on all devices together.
      window: kernel size, atrous rates, padding and stride of the convolution or pooling.
    """
    results = -(-count // parts)
    starts = [first * window.stride - window.padding[0][0] for first in firsts(parts, results)]
    length = (results - 1) * window.stride + reach(window)
    return RowBlocks(axis, -(-rows // parts), rows, tuple(starts), length)


def output_blocks(axis: str, parts: int, rows: int, count: int, window: Window) -> RowBlocks:
    """Returns the output rows to which the input rows of each device contribute.

    Args: see `input_blocks`.
    """
    own, before = -(-rows // parts), window.padding[0][0]
    starts = [
        -(-(first + before - reach(window) + 1) // window.stride) for first in firsts(parts, own)
    ]
    ends = [(first + own - 1 + before) // window.stride for first in firsts(parts, own)]
    length = max(end - start for start, end in zip(starts, ends, strict=True)) + 1
    return RowBlocks(axis, -(-count // parts), count, tuple(starts), length)


def take_rows(
    maps: Float[Array, "N H W C"], offsets: Sequence[int], length: int, axis: str
) -> Float[Array, "N R W C"]:
    """Returns rows of the map on this device, from a first row that can differ between devices.

    This function must be called on every device.

    Args:
      maps: rows on this device, [N, H, W, C]; rows before and after these are read as zeros.
      offsets: for each device, the first row to return, as an index in its `maps`; can be negative.
      length: number of rows of the result.
      axis: name of the mesh axis along which the offsets differ.
    """
    before = max(0, -min(offsets))
    after = max(0, max(offsets) + length - maps.shape[1])
    maps = pad_rows(maps, before, after)
    if len(set(offsets)) == 1:
        return maps[:, offsets[0] + before : offsets[0] + before + length]
    first = jnp.asarray([offset + before for offset in offsets])[lax.axis_index(axis)]
    return lax.dynamic_slice_in_dim(maps, first, length, axis=1)


def pad_rows(maps: jax.Array, before: int, after: int) -> jax.Array:
    """Adds rows of zeros before and after a map."""
    return jnp.pad(maps, ((0, 0), (before, after), *[(0, 0)] * (maps.ndim - 2)))


def resized_blocks(
    axis: str, parts: int, height: int, sources: Sequence[tuple[int, int]]
) -> RowBlocks:
    """Returns the rows of a map that each device needs for its rows of the resized map.

    Args:
      axis, parts: name and size of the mesh axis over which rows are sharded.
      height: number of rows of the map.
      sources: for each row of the resized map, the first and the last row of the map that it uses.
    """
    rows = len(sources)
    results = -(-rows // parts)
    # A device whose rows are all after the end of the result depends on the last row.
    ranges = [
        (sources[min(first, rows - 1)][0], sources[min(first + results, rows) - 1][1])
        for first in firsts(parts, results)
    ]
    length = max(last - first for first, last in ranges) + 1
    starts = tuple(first for first, _ in ranges)
    return RowBlocks(axis, -(-height // parts), height, starts, length)


def firsts(parts: int, rows: int) -> range:
    """Returns the index of the first row on each of `parts` devices with `rows` rows each."""
    return range(0, parts * rows, rows)


def reach(window: Window) -> int:
    """Returns the number of input rows from the first to the last tap of a kernel, inclusive."""
    return (window.size - 1) * window.rates[0] + 1
