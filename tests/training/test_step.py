import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiling import run_once
from step_parts import Small, objective_of, random_batch

from deeplab_jax import config as configs
from deeplab_jax.losses import softmax_cross_entropy
from deeplab_jax.parallel import make_mesh
from deeplab_jax.training.optimizers import scale_by_part
from deeplab_jax.training.state import StateSpec
from deeplab_jax.training.step import (
    StepLayout,
    accumulated_gradients,
    averaged,
    in_parts,
    make_train_step,
)

SIZE = (8, 9)


def fresh_state(model, optimizer, keep_ema=False):
    mesh = make_mesh(jax.devices()[:1])
    return StateSpec(model, optimizer, mesh, SIZE, keep_ema).create(0)


@pytest.mark.parametrize(
    ("parts", "class_weights"), [(1, None), (2, None), (4, (0.5, 1.0, 2.0, 0.0))]
)
def test_accumulated_gradients_are_those_of_the_whole_batch(parts, class_weights):
    model, batch = Small(frozen=True), random_batch(4)
    variables = fresh_state(model, optax.sgd(1.0)).variables

    def whole(params):
        logits = model.apply(variables | {"params": params}, batch["image"])
        return softmax_cross_entropy(logits, batch["label"], class_weights=class_weights)

    def both(variables):
        key = jax.random.key(0)
        objective = objective_of(model, class_weights=class_weights)
        found = accumulated_gradients(
            model, StepLayout(None), variables, batch, key, parts, objective, 0
        )
        return found, jax.value_and_grad(whole)(variables["params"])

    (loss, gradients, batch_stats), expected = run_once(both, variables)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(compare, (loss, gradients), expected)
    jax.tree.map(np.testing.assert_array_equal, batch_stats, variables["batch_stats"])


def test_the_auxiliary_loss_is_added_with_its_weight():
    model, batch = Small(frozen=True, auxiliary=True), random_batch(2)
    variables = fresh_state(model, optax.sgd(1.0)).variables

    def both(variables):
        logits, maps = model.apply(variables, batch["image"], endpoints=True)
        parts = [softmax_cross_entropy(x, batch["label"]) for x in (logits, maps["auxiliary"])]
        objective = objective_of(model, auxiliary_weight=0.4)
        found = accumulated_gradients(
            model, StepLayout(None), variables, batch, jax.random.key(0), 1, objective, 0
        )
        return found[0], found[1], parts

    loss, gradients, (main, auxiliary) = run_once(both, variables)
    assert auxiliary != main
    np.testing.assert_allclose(loss, main + 0.4 * auxiliary, rtol=1e-6)
    assert np.any(gradients["auxiliary"]["kernel"])


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_hold_every_example_once_and_some_of_every_device(parts):
    split = np.asarray(in_parts(jnp.arange(12), parts))
    assert split.shape == (parts, 12 // parts)
    assert sorted(split.ravel()) == list(range(12))
    # Two devices hold 0 to 5 and 6 to 11.
    assert {(part < 6).sum() for part in split} == {6 // parts}


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (10**6, 0.99)])
def test_the_average_forgets_its_first_values(step, decay):
    old, new = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -2.0])}
    found = averaged(old, new, jnp.int32(step), 0.99)
    np.testing.assert_allclose(found["a"], decay * old["a"] + (1 - decay) * new["a"], rtol=1e-5)


def test_a_step_updates_everything_once():
    model, batch, optimizer = Small(), random_batch(4), optax.sgd(0.5)
    state = fresh_state(model, optimizer, keep_ema=True)
    before = jax.tree.map(np.array, state)
    mesh = make_mesh(jax.devices()[:1])
    schedule = optax.linear_schedule(0.5, 0.0, 10)
    step = make_train_step(
        model, optimizer, schedule, objective_of(model), mesh, seed=0, ema_decay=0.9
    )
    after, metrics = step(state, batch)

    def reference(variables):
        key, objective = jax.random.key(0), objective_of(model)
        return accumulated_gradients(
            model, StepLayout(None), variables, batch, key, 1, objective, 0
        )

    loss, gradients, batch_stats = run_once(reference, before.variables)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    params = jax.tree.map(lambda p, g: p - 0.5 * g, before.variables["params"], gradients)
    compare(metrics["loss"], loss)
    compare(metrics["learning_rate"], 0.5)
    compare(metrics["gradient_norm"], optax.tree.norm(gradients))
    jax.tree.map(compare, after.variables, {"params": params, "batch_stats": batch_stats})
    # The decay of the first step is 1/10.
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.ema, after.variables)
    jax.tree.map(compare, after.ema, expected)
    assert after.evaluated is after.ema
    assert int(after.step) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.variables))


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_of_frozen_parts_are_not_computed(parts):
    model, batch = Small(), random_batch(4)
    multipliers = dict(configs.default().optimizer.multipliers) | {"head": 0.0}
    optimizer = optax.chain(scale_by_part(multipliers), optax.sgd(0.5))
    rate = optax.constant_schedule(0.5)

    def step(multipliers):
        state = fresh_state(model, optimizer)
        options = {"seed": 0, "accumulation_steps": parts, "multipliers": multipliers}
        run = make_train_step(model, optimizer, rate, objective_of(model), None, **options)
        compiled = run.lower(state, batch).compile()
        after, metrics = compiled(state, batch)
        return jax.device_get(after), metrics, compiled.cost_analysis()["flops"]

    before = jax.device_get(fresh_state(model, optimizer).variables["params"])
    whole, metrics, flops = step(None)
    frozen, metrics_frozen, flops_frozen = step(multipliers)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(compare, frozen.variables, whole.variables)
    jax.tree.map(np.testing.assert_array_equal, frozen.variables["params"]["conv"], before["conv"])
    compare(metrics_frozen["loss"], metrics["loss"])
    assert metrics_frozen["gradient_norm"] < metrics["gradient_norm"]
    assert flops_frozen < 0.8 * flops


def test_the_state_is_a_function_of_the_seed():
    mesh, optimizer = make_mesh(jax.devices()[:1]), optax.sgd(1.0)
    one, same, other = (
        StateSpec(Small(), optimizer, mesh, SIZE).create(seed) for seed in (0, 0, 1)
    )
    kernels = [state.variables["params"]["conv"]["kernel"] for state in (one, same, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    assert one.ema is None
    assert one.evaluated is one.variables


def test_the_l1_penalty_is_added_once_whatever_the_parts():
    model, batch, optimizer = Small(frozen=True), random_batch(4), optax.sgd(0.5)
    mesh, rate = make_mesh(jax.devices()[:1]), optax.constant_schedule(0.5)
    start = jax.device_get(fresh_state(model, optimizer).variables["params"])

    def step(**options):
        state = fresh_state(model, optimizer)
        run = make_train_step(model, optimizer, rate, objective_of(model), mesh, seed=0, **options)
        after, metrics = run(state, batch)
        return after.variables["params"], float(metrics["loss"])

    (plain, loss), (penalised, more) = step(), step(l1=0.01, accumulation_steps=2)
    kernels = [start[name]["kernel"] for name in ("conv", "classifier")]
    assert more - loss == pytest.approx(0.01 * sum(np.abs(k).sum() for k in kernels), rel=1e-4)
    for name in ("conv", "classifier"):
        moved = np.asarray(penalised[name]["kernel"] - plain[name]["kernel"])
        np.testing.assert_allclose(moved, -0.5 * 0.01 * np.sign(start[name]["kernel"]), atol=1e-6)
    np.testing.assert_allclose(
        penalised["classifier"]["bias"], plain["classifier"]["bias"], atol=1e-6
    )


def test_the_l1_penalty_of_frozen_parts_has_no_gradient():
    model, batch = Small(frozen=True), random_batch(4)
    multipliers = dict(configs.default().optimizer.multipliers) | {"head": 0.0}
    optimizer, rate = optax.sgd(0.5), optax.constant_schedule(0.5)
    start = jax.device_get(fresh_state(model, optimizer).variables["params"])
    options = {"seed": 0, "multipliers": multipliers, "l1": 100.0}
    step = make_train_step(model, optimizer, rate, objective_of(model), None, **options)
    after, metrics = step(fresh_state(model, optimizer), batch)
    np.testing.assert_array_equal(
        after.variables["params"]["conv"]["kernel"], start["conv"]["kernel"]
    )
    # The slope of the penalty is 100 at each of the trained values; other gradients are small.
    trained = start["classifier"]["kernel"].size
    assert float(metrics["gradient_norm"]) == pytest.approx(100 * trained**0.5, rel=0.05)
