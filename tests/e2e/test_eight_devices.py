"""Eight devices train the same parameters as one, in float64, where rounding cannot hide."""

import subprocess
import sys

import pytest

COMPARISON = """
import jax, numpy as np
import jax.numpy as jnp
from deeplab_jax.models import create_model
from deeplab_jax.parallel import make_mesh, put_batch
from deeplab_jax.training.loss import make_objective
from deeplab_jax.training.optimizers import make_optimizer
from deeplab_jax.training.optimizers import poly_schedule
from deeplab_jax.training.state import StateSpec
from deeplab_jax.training.step import make_train_step
from deeplab_jax import config as configs

config = configs.default()
model = create_model("deeplab_v3plus", backbone="mobilenet_v2", depth_multiplier=0.25,
                     aspp_channels=8, decoder_convs=((3, 8),), separable=True, num_classes=5,
                     batch_norm_decay=0.9, dropout_rate=0.1, dtype="float64")
random = np.random.default_rng(0)
batches = [
    {"image": random.integers(0, 256, (8, 33, 49, 3), dtype=np.uint8),
     "label": random.choice([0, 1, 2, 3, 4, 255], (8, 33, 49)).astype(np.uint8)}
    for _ in range(20)
]

def end(devices):
    mesh, rate = make_mesh(devices), poly_schedule(0.01, 10**9, 0.9)
    optimizer = make_optimizer(config.optimizer, rate)
    state = StateSpec(model, optimizer, mesh, (33, 49)).create(0)
    objective = make_objective(config.loss, model.architecture)
    step = make_train_step(model, optimizer, rate, objective, mesh, seed=0)
    for batch in batches:
        state, metrics = step(state, put_batch(batch, mesh))
    assert metrics["loss"].dtype == jnp.float64
    leaves = jax.tree.leaves(jax.device_get(state.variables))
    return np.concatenate([leaf.ravel() for leaf in leaves])

one, eight = end(jax.devices()[:1]), end(jax.devices())
print("difference", np.linalg.norm(one - eight) / np.linalg.norm(one))
"""


@pytest.fixture
def eight_devices(monkeypatch):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("JAX_ENABLE_X64", "1")


# tests/parallel/test_layouts.py has a quicker one, of four devices.
@pytest.mark.slow
@pytest.mark.usefixtures("eight_devices")
def test_eight_devices_equal_one():
    done = subprocess.run(
        [sys.executable, "-c", COMPARISON], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    difference = float(done.stdout.split()[-1])
    print(f"‖a−b‖/‖b‖ over all variables after 20 steps: {difference:.1e}")
    assert difference <= 1e-9
