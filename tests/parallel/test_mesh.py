import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel import check_divisible, make_mesh, put_batch

HELPERS = pathlib.Path(__file__).parents[1] / "helpers"


class MeshOf:
    """The attribute of a mesh that `check_divisible` uses."""

    def __init__(self, size):
        self.shape = {"data": size, "spatial": 3}


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (8, 4), (8, 8)])
def test_batches_that_split(batch_size, devices):
    check_divisible(batch_size, MeshOf(devices))


@pytest.mark.parametrize(
    ("batch_size", "devices", "nearest"), [(6, 4, "4, 8"), (3, 8, "8"), (0, 2, "2"), (-1, 1, "1")]
)
def test_batches_that_do_not_split_name_the_nearest_that_do(batch_size, devices, nearest):
    message = rf"part\.batch_size={batch_size} is not a .* multiple of {devices}, .*: {nearest}$"
    with pytest.raises(DeepLabError, match=message):
        check_divisible(batch_size, MeshOf(devices), "part.batch_size")


def test_a_batch_arrives_as_it_was():
    batch = {"image": np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)}
    placed = put_batch(batch, make_mesh(jax.devices()[:1]))
    assert placed["image"].dtype == np.uint8
    np.testing.assert_array_equal(placed["image"], batch["image"])


PROGRAM = """
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from step_parts import Small, objective_of, random_batch

from deeplab_jax.parallel import make_mesh, put_batch
from deeplab_jax.training.state import StateSpec
from deeplab_jax.training.step import make_train_step

results = []
for devices in (jax.devices()[:1], jax.devices()):
    mesh, model, optimizer = make_mesh(devices), Small(), optax.sgd(0.1)
    state = StateSpec(model, optimizer, mesh, (8, 9), True).create(0)
    step = make_train_step(
        model, optimizer, optax.constant_schedule(0.1), objective_of(model), mesh,
        seed=0, accumulation_steps=2, ema_decay=0.9,
    )
    for seed in range(2):
        state, metrics = step(state, put_batch(random_batch(8, seed), mesh))
    shards = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
    leaves = [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves((state, metrics))]
    results.append({"devices": sorted(shards), "leaves": sum(leaves, [])})
json.dump(results, sys.stdout)
"""


def test_four_devices_update_as_one_does():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
        "PYTHONPATH": os.pathsep.join([str(HELPERS), str(HELPERS.parent)]),
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    one, four = json.loads(result.stdout)
    assert (one["devices"], four["devices"]) == ([1], [4])
    np.testing.assert_allclose(four["leaves"], one["leaves"], rtol=0, atol=1e-6)
