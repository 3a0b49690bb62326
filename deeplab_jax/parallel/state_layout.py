"""Parameters and optimiser state: whole on every device, or split over the batch's devices."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeplab_jax.parallel.mesh import DATA_AXIS, data_size, replicated


def state_shardings(shapes: Any, mesh: Mesh, *, fsdp: bool = False) -> Any:
    """Returns the sharding of every array of a state.

    With `fsdp` each kernel, and what the optimiser keeps of it, is split over `data` along its
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
    # Of equal ones the last: output channels.
    return max(dividing, key=lambda axis: (shape[axis], axis), default=None)
