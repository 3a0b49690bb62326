"""Trains and evaluates on layouts of devices, in separate processes, to compare the results."""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import filelock
import numpy as np

HELPERS = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Task:
    """Training to run on one layout of devices.

    Attributes:
      data, spatial: sizes of the mesh axes, over the first data·spatial devices of the job.
      fsdp: whether parameters are sharded.
      backbone, dtype, crop, num_steps: settings of the training.
      options: further keywords of the model.
      remat: see `layers.REMAT`.
      optimizer: name of the optimizer.
    """

    data: int = 1
    spatial: int = 1
    fsdp: bool = False
    backbone: str = "resnet_18"
    dtype: str = "float64"
    crop: tuple[int, int] = (49, 33)
    num_steps: int = 3
    options: dict = dataclasses.field(default_factory=dict)
    remat: str = "none"
    optimizer: str = "sgd"


def run_tasks(
    tasks: Sequence[Task],
    folder: pathlib.Path,
    *,
    devices: int,
    processes: int = 1,
    optimization_level: int = 1,
    timeout: float = 3000,
) -> list[dict[str, np.ndarray]]:
    """Returns the results of each task: `params` (one vector), `losses` and the compiled program.

    Args:
      tasks: tasks, run one after the other by the same processes.
      folder: directory for results.
      devices: number of devices per process.
      processes: number of processes on this machine.
      optimization_level: optimization level of XLA.
      timeout: maximum time in seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [json.dumps([dataclasses.asdict(task) for task in tasks]), str(folder)]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": f"--xla_backend_optimization_level={optimization_level}",
        "PYTHONPATH": os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])]),
    }
    # One run at a time: each takes several gigabytes of memory.
    with filelock.FileLock(pathlib.Path(tempfile.gettempdir(), "deeplab_jax_layouts.lock")):
        running = [
            subprocess.Popen(
                [sys.executable, __file__, *words, f"127.0.0.1:{port}", str(processes), str(one)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for one in range(processes)
        ]
        said = [process.communicate(timeout=timeout)[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(said)
    return [dict(np.load(folder / f"{number}.npz")) for number in range(len(tasks))]


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Returns ‖a−b‖/‖b‖ over all parameters."""
    return np.linalg.norm(one["params"] - other["params"]) / np.linalg.norm(other["params"])


def _do(task: Task) -> dict[str, np.ndarray]:
    import jax
    import jax.numpy as jnp

    from deeplab_jax import config as configs
    from deeplab_jax.models import create_model
    from deeplab_jax.parallel import (
        data_share,
        make_mesh,
        place,
        put_batch,
        replicated,
        state_shardings,
        wait_for_hosts,
    )
    from deeplab_jax.planning.collectives import find_collectives, totals
    from deeplab_jax.planning.hlo import parse
    from deeplab_jax.training.loss import make_objective
    from deeplab_jax.training.optimizers import make_optimizer, poly_schedule
    from deeplab_jax.training.state import StateSpec
    from deeplab_jax.training.step import make_train_step

    config = configs.default()
    config.optimizer.name = task.optimizer
    model = create_model(
        "deeplab_v3plus",
        backbone=task.backbone,
        num_classes=5,
        batch_norm_decay=0.9,
        dtype=task.dtype,
        **({"aspp_channels": 16, "decoder_convs": ((3, 16),)} | task.options),
    )
    mesh = make_mesh(
        jax.devices()[: task.data * task.spatial], data=task.data, spatial=task.spatial
    )
    rate = poly_schedule(0.01, 10**9, 0.9)
    optimizer = make_optimizer(config.optimizer, rate)
    crop = tuple(task.crop)
    state = StateSpec(model, optimizer, mesh, crop, fsdp=task.fsdp).create(0)
    if task.dtype == "float64":
        # Moving averages are born in float32; else the second step would be another program.
        state = jax.jit(
            lambda state: jax.tree.map(
                lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state
            ),
            out_shardings=state_shardings(state, mesh, fsdp=task.fsdp),
        )(state)
    step = make_train_step(
        model.clone(remat=task.remat),
        optimizer,
        rate,
        make_objective(config.loss, model.architecture),
        mesh,
        state_sharding=state_shardings(state, mesh, fsdp=True) if task.fsdp else None,
        seed=0,
    )
    random, share, losses = np.random.default_rng(0), data_share(mesh), []
    for _ in range(task.num_steps):
        whole = {
            "image": random.integers(0, 256, (8, *crop, 3), dtype=np.uint8),
            "label": random.choice([0, 1, 2, 3, 4, 255], (8, *crop)).astype(np.uint8),
        }
        own = slice(share.index * 8 // share.count, (share.index + 1) * 8 // share.count)
        batch = put_batch({name: array[own] for name, array in whole.items()}, mesh)
        if not losses:
            step = step.lower(state, batch).compile()
            # Gloo waits 30 s for the other processes, whose compilation may take longer.
            wait_for_hosts("the compiled step")
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    params = jax.tree.leaves(place(state.variables["params"], replicated(mesh)))
    text = step.as_text()
    exchanged = totals(find_collectives(parse(text), dict(mesh.shape)))
    return {
        "params": np.concatenate([np.asarray(leaf).ravel() for leaf in params]),
        "losses": np.asarray(losses),
        "temporary_bytes": np.asarray(step.memory_analysis().temp_size_in_bytes),
        "argument_bytes": np.asarray(step.memory_analysis().argument_size_in_bytes),
        "halo_exchanges": np.asarray(text.count(" collective-permute(")),
        "all_reduces": np.asarray(text.count(" all-reduce(")),
        "all_gathers": np.asarray(text.count(" all-gather(")),
        "collectives": np.asarray(json.dumps(exchanged)),
    }


def _main(tasks: str, folder: str, coordinator: str, processes: str, process: str) -> None:
    import time

    import jax

    from deeplab_jax.parallel import Addresses, is_first_host, start_hosts, wait_for_hosts

    if int(processes) > 1:
        start_hosts(Addresses(coordinator, int(processes), int(process)))
    for number, fields in enumerate(json.loads(tasks)):
        started = time.perf_counter()
        result = _do(Task(**fields))
        if is_first_host():
            seconds = np.asarray(time.perf_counter() - started)
            np.savez(pathlib.Path(folder) / f"{number}.npz", **result, seconds=seconds)
    wait_for_hosts("the end")
    if int(processes) > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    _main(*sys.argv[1:])
