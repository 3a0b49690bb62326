"""What one process was told and all must act on, at the same step."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeplab_jax.parallel.mesh import replicated

# Steps that the answer stays behind, so that the question never waits for the devices.
LAG = 2


class Agreement:
    """Whether any process was asked to stop; all of them learn it after the same step."""

    def __init__(self, mesh: Mesh) -> None:
        """Prepares to ask the processes of a mesh."""
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._own_devices = len(mesh.local_devices)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))
        self._waiting: collections.deque[jax.Array] = collections.deque()

    def __call__(self, asked: bool) -> bool:
        """Returns whether to stop; to be called by all processes after every step.

        A process that is alone hears at once, several `LAG` steps later.

        Args:
          asked: whether this process was asked to stop.
        """
        if jax.process_count() == 1:
            return asked
        flags = np.full(self._own_devices, asked)
        here = jax.make_array_from_process_local_data(self._sharding, flags)
        self._waiting.append(self._any(here))
        return len(self._waiting) > LAG and bool(self._waiting.popleft())
