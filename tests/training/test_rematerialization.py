"""Rematerialization gives the same numbers with less memory."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from step_parts import NUM_CLASSES, objective_of

from deeplab_jax.backbones.atrous import Unit
from deeplab_jax.backbones.mobilenet import InvertedResidual
from deeplab_jax.backbones.resnet import ResidualUnit
from deeplab_jax.layers import Classifier, ConvNorm, Form, Normalization
from deeplab_jax.models import Architecture
from deeplab_jax.parallel import make_mesh
from deeplab_jax.training.state import StateSpec
from deeplab_jax.training.step import make_train_step

SIZE = (17, 23)
# On CPUs XLA by default orders operations for speed alone, and keeps everything.
OPTIONS = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_backend_optimization_level": 0,
}


class Stack(nn.Module):
    """Two kinds of units, some of them strided, then a classifier with dropout."""

    architecture: Architecture = Architecture("mobilenet_v2", num_classes=NUM_CLASSES)
    remat: str = "none"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False, endpoints: bool = False):
        form, norm = Form(remat=self.remat), Normalization(decay=0.9, epsilon=1e-3)
        conv_norm = partial(ConvNorm, normalization=norm, form=form)
        hidden = conv_norm(8, name="stem")(image.astype(jnp.float32) / 255, train)
        for number in range(2):
            block = form.block(InvertedResidual)
            unit = block(8, 48, 1, 1, True, conv_norm, name=f"inverted_{number}")
            hidden, _ = unit(hidden, train)
        convolutions = (Unit(1, 1), Unit(1, 2), Unit(1, 1))
        unit = form.block(ResidualUnit)(16, 8, convolutions, conv_norm, name="residual")
        hidden, inner = unit(hidden, train)
        hidden = nn.Dropout(0.2, deterministic=not train)(hidden + inner)
        logits = Classifier(NUM_CLASSES, name="classifier")(hidden)
        return (logits, {}) if endpoints else logits


@pytest.fixture(scope="module")
def results():
    """Variables and metrics after two steps, by the value of `remat`."""
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 256, (4, *SIZE, 3), dtype=np.uint8),
        "label": random.integers(0, NUM_CLASSES, (4, *SIZE)).astype(np.uint8),
    }
    mesh, optimizer = make_mesh(jax.devices()[:1]), optax.sgd(0.1)

    def run(what):
        model = Stack(remat=what)
        state = StateSpec(model, optimizer, mesh, SIZE).create(0)
        rate = optax.constant_schedule(0.1)
        step = make_train_step(model, optimizer, rate, objective_of(model), mesh, seed=0)
        for _ in range(2):
            state, metrics = step(state, batch)
        return jax.device_get((state.variables, metrics))

    return functools.cache(run)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["norm", "block"])
def test_the_same_numbers(results, what):
    compare = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, results(what), results("none"))


class Chain(nn.Module):
    """Five units in a row."""

    remat: str = "none"

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        form, norm = Form(remat=self.remat), Normalization(decay=0.9, epsilon=1e-3)
        conv_norm = partial(ConvNorm, normalization=norm, form=form)
        hidden = conv_norm(8, name="stem")(maps, train)
        for number in range(5):
            unit = form.block(InvertedResidual)(8, 48, 1, 1, True, conv_norm, name=f"unit_{number}")
            hidden, _ = unit(hidden, train)
        return hidden


def test_less_memory():
    maps = jax.ShapeDtypeStruct((4, *SIZE, 3), jnp.float32)
    variables = jax.eval_shape(Chain().init, jax.random.key(0), maps)

    def temporary_bytes(what):
        model = Chain(remat=what)

        def loss(params, batch_stats, maps):
            given = {"params": params, "batch_stats": batch_stats}
            outputs, changed = model.apply(given, maps, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(outputs)), changed

        gradient = jax.jit(jax.grad(loss, has_aux=True))
        lowered = gradient.lower(variables["params"], variables["batch_stats"], maps)
        return lowered.compile(compiler_options=OPTIONS).memory_analysis().temp_size_in_bytes

    assert temporary_bytes("block") < 0.9 * temporary_bytes("none")
