"""With a mesh of one device, the program is the same as without a mesh."""

import re

import jax
import optax
import pytest
from step_parts import Small, objective_of, random_batch

from deeplab_jax.parallel import make_mesh, put_batch
from deeplab_jax.training.state import StateSpec
from deeplab_jax.training.step import make_train_step

COLLECTIVES = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start)?\("
)
OPERATION = re.compile(r"= (\S+) ([a-z][a-z\-]*)\(")
SIZES = ("argument", "output", "temp", "alias", "generated_code")


@pytest.fixture(scope="module")
def compiled():
    """The step with a mesh of one device, and without any mesh."""
    mesh, model, optimizer = make_mesh(jax.devices()[:1]), Small(), optax.sgd(0.1)
    state = StateSpec(model, optimizer, mesh, (8, 9), True).create(0)
    rate, objective = optax.constant_schedule(0.1), objective_of(model)

    def compile_with(mesh, batch):
        step = make_train_step(model, optimizer, rate, objective, mesh, seed=0, ema_decay=0.9)
        return step.lower(jax.device_get(state) if mesh is None else state, batch).compile()

    batch = random_batch(4)
    return compile_with(mesh, put_batch(batch, mesh)), compile_with(None, batch)


def test_the_same_arithmetic(compiled):
    with_mesh, without = (one.cost_analysis() for one in compiled)
    assert with_mesh["flops"] == without["flops"] > 0
    assert with_mesh == without


def test_the_same_memory(compiled):
    with_mesh, without = (one.memory_analysis() for one in compiled)
    for size in SIZES:
        name = f"{size}_size_in_bytes"
        assert getattr(with_mesh, name) == getattr(without, name), name


def test_no_collectives_and_the_same_program(compiled):
    with_mesh, without = (one.as_text() for one in compiled)
    assert not COLLECTIVES.search(with_mesh)

    def operations(text):
        """Kind and shape of each operation, in order; names and annotations may differ."""
        return OPERATION.findall(text)

    assert len(operations(without)) > 100
    assert operations(with_mesh) == operations(without)
