"""Unstructured pruning while a network trains."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplab_jax import config as configs
from deeplab_jax.compression.magnitude_pruning import (
    cubic_sparsity,
    pruned_gradually,
    pruning_optimizer,
    smallest_pruned,
    sparsity_of,
)
from deeplab_jax.errors import DeepLabError


@pytest.mark.parametrize(("step", "share"), [(0, 0), (5, 0.7), (10, 0.8), (99, 0.8)])
def test_sparsity_rises_by_the_cube(step, share):
    assert float(cubic_sparsity(jnp.array(step), 0.8, 10)) == pytest.approx(share)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_the_smallest_numbers_go_exactly(share):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 7)).astype(np.float32)
    mask = np.asarray(smallest_pruned(jnp.asarray(kernel), share))
    assert (~mask).sum() == round(share * kernel.size)
    if 0 < share < 1:
        assert np.abs(kernel[~mask]).max() < np.abs(kernel[mask]).min()


def test_equal_numbers_are_pruned_to_the_count():
    assert int(smallest_pruned(jnp.ones((1, 1, 4, 5)), 0.35).sum()) == 13


@pytest.mark.parametrize(("field", "value"), [("ema_decay", 0.99), ("patience", 5)])
def test_settings_that_would_lower_the_sparsity_are_refused(field, value):
    config = configs.default()
    config.training[field] = value
    with pytest.raises(DeepLabError, match=f"give --config.training.{field}=0"):
        pruned_gradually(SimpleNamespace(config=config), 0.8)


def test_training_ends_at_exactly_the_sparsity_and_zeros_stay():
    random = np.random.default_rng(0)
    params = {
        "conv": {"kernel": jnp.asarray(random.normal(size=(3, 3, 4, 10)), jnp.float32)},
        "depthwise": {"kernel": jnp.asarray(random.normal(size=(3, 3, 1, 10)), jnp.float32)},
        "norm": {"scale": jnp.ones(10)},
    }
    optimizer = pruning_optimizer(optax.sgd(0.1, momentum=0.9), 0.75, end=10, every=3)
    state, step = optimizer.init(params), jax.jit(optimizer.update)
    masks = []
    for number in range(14):
        gradients = jax.tree.map(
            lambda array: jnp.asarray(random.normal(size=array.shape), jnp.float32), params
        )
        updates, state = step(gradients, state, params)
        params = optax.apply_updates(params, updates)
        masks.append(np.asarray(params["conv"]["kernel"]) != 0)
        if number + 1 == 6:
            expected = round(0.75 * (1 - 0.4**3) * 360)
            assert (~masks[-1]).sum() == expected
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(masks))
    assert sparsity_of(params) == 0.75
    assert (~masks[-1]).sum() == 270
    assert np.count_nonzero(params["depthwise"]["kernel"]) == 90
