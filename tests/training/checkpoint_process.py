"""A process that saves or restores a state whose values follow from its step.

usage: python checkpoint_process.py save|restore WORKDIR STEP DATA SPACE FSDP
"""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.parallel import joined_hosts, make_mesh, state_shardings
from deeplab_jax.training.checkpoints import Checkpointer
from deeplab_jax.training.state import TrainState

SHAPES = {"kernel": (1, 1, 1024, 512), "odd": (5, 7), "bias": (24,)}


def values(step: int) -> TrainState:
    """Returns the state of a step."""
    params = {
        name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) * step
        for name, shape in SHAPES.items()
    }
    variables = {"params": params, "batch_stats": {"mean": np.full(24, step, np.float32)}}
    momentum = jax.tree.map(np.negative, params)
    return TrainState(np.int32(step), variables, (momentum, np.int32(step)), variables)


def main(action: str, workdir: str, step: str, data: str, spatial: str, fsdp: str) -> None:
    """Saves or restores as the command line specifies; fails if the values differ."""
    expected = values(int(step))
    mesh = make_mesh(data=int(data), spatial=int(spatial))
    shardings = state_shardings(expected, mesh, fsdp=fsdp == "True")
    with Checkpointer(pathlib.Path(workdir)) as checkpointer:
        if action == "save":
            state = jax.tree.map(_placed, expected, shardings)
            checkpointer.save(state, {"step": int(step)}, mean_iou=0.5)
            return
        like = jax.tree.map(
            lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own),
            expected,
            shardings,
        )
        before = bytes_read()
        restored = checkpointer.restore(like)
        # The first process reads the checkpoint, of which each of four kernels has 2 MB.
        assert jax.process_index() == 0 or bytes_read() - before < 2**20
    for leaf, wanted, own in zip(
        *map(jax.tree.leaves, (restored, expected, shardings)), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(own, leaf.ndim), (leaf.sharding, own)
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), wanted[shard.index])


def bytes_read() -> int:
    """Returns the number of bytes that this process has read from files; 0 except on Linux."""
    counts = pathlib.Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0


def _placed(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    array = jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


if __name__ == "__main__":
    with joined_hosts(end=lambda message: (print(message, flush=True), os._exit(3))):
        main(*sys.argv[1:])
