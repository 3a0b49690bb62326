from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplab_jax.losses import dense_kernels, kernels, l1_penalty, l2_penalty
from deeplab_jax.training.optimizers import decayed_parameters

PARAMS = {
    "conv": {
        "kernel": np.array([[1.0, -2.0], [0.0, 4.0]], np.float32),
        "norm": {"scale": np.array([100.0], np.float32)},
    },
    "separable": {
        "depthwise": {"kernel": np.array([3.0], np.float32)},
        "pointwise": {"kernel": np.array([-5.0], np.float32)},
    },
    "classifier": {"kernel": np.array([0.5], np.float32), "bias": np.array([100.0], np.float32)},
}


def classifier(names):
    return names[0] == "classifier"


@pytest.mark.parametrize(
    ("penalty", "group", "expected"),
    [
        (l1_penalty, dense_kernels, 0.1 * (1 + 2 + 4 + 5 + 0.5)),
        (l1_penalty, kernels, 0.1 * (1 + 2 + 4 + 5 + 0.5 + 3)),
        (l1_penalty, classifier, 0.1 * 100.5),
        (l2_penalty, dense_kernels, 0.05 * (1 + 4 + 16 + 25 + 0.25)),
        (l2_penalty, kernels, 0.05 * (1 + 4 + 16 + 25 + 0.25 + 9)),
        (l2_penalty, classifier, 0.05 * (0.25 + 100**2)),
        (l2_penalty, lambda names: False, 0),
    ],
)
def test_values_by_hand(penalty, group, expected):
    found = jax.jit(partial(penalty, strength=0.1, group=group))(PARAMS)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("group", "depthwise"), [(dense_kernels, False), (kernels, True)])
def test_slope_of_l2_is_weight_decay(group, depthwise):
    decay = optax.add_decayed_weights(
        0.1, mask=partial(decayed_parameters, decay_depthwise=depthwise)
    )
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    expected, _ = decay.update(zeros, decay.init(PARAMS), PARAMS)
    found = jax.grad(l2_penalty)(PARAMS, 0.1, group)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


def test_slope_of_l1_is_the_sign():
    gradient = jax.grad(l1_penalty)(PARAMS, 0.1)
    np.testing.assert_allclose(gradient["conv"]["kernel"], [[0.1, -0.1], [0, 0.1]], rtol=1e-6)
    assert not gradient["classifier"]["bias"].any()


def test_bfloat16_parameters_are_summed_in_float32():
    params = {"kernel": jnp.ones(1000, jnp.bfloat16)}
    assert float(l1_penalty(params, 1.0)) == 1000
    assert l2_penalty(params, 1.0).dtype == jnp.float32
