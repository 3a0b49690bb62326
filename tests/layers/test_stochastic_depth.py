"""Stochastic depth drops whole images of a branch and divides those that it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.layers.residual import StochasticDepth, depth_rates
from deeplab_jax.models import create_model


def test_branches_are_dropped_by_image_and_keep_their_mean():
    branch = jnp.arange(1, 2 * 3 * 5 + 1, dtype=jnp.float32).reshape(1, 2, 3, 5)
    branches = jnp.repeat(branch, 4000, axis=0)
    layer = StochasticDepth(0.25)
    found = np.asarray(layer.apply({}, branches, True, rngs={"dropout": jax.random.key(0)}))
    kept = found[:, 0, 0, 0] != 0
    np.testing.assert_allclose(found[kept], np.asarray(branches)[kept] / 0.75, rtol=1e-6)
    assert (found[~kept] == 0).all()
    # The standard deviation of the fraction is 0.007.
    assert kept.mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(layer.apply({}, branches[:2], False), branches[:2])


@pytest.mark.parametrize(
    ("maximum", "count", "rates"),
    [(0.3, 4, [0.0, 0.1, 0.2, 0.3]), (0.3, 1, [0.0]), (0.0, 3, [0.0, 0.0, 0.0])],
)
def test_rates_rise_linearly_with_the_unit(maximum, count, rates):
    assert depth_rates(maximum, count) == pytest.approx(rates)


def test_a_resnet_has_it_in_training_only_and_with_the_same_variables():
    image = jnp.zeros((2, 33, 33, 3), jnp.uint8)
    keywords = {"backbone": "resnet_18", "num_classes": 2, "head": "plain", "dropout_rate": 0.0}
    plain, deep = (
        create_model("deeplab_v3", **keywords, stochastic_depth=rate) for rate in (0.0, 0.999)
    )
    shapes = [
        jax.eval_shape(lambda model=model: model.init(jax.random.key(0), image))
        for model in (plain, deep)
    ]
    assert jax.tree.map(jnp.shape, shapes[0]) == jax.tree.map(jnp.shape, shapes[1])

    def program(model, train):
        def apply(variables):
            rngs = {"dropout": jax.random.key(0)}
            return model.apply(variables, image, train=train, mutable=["batch_stats"], rngs=rngs)

        return str(jax.make_jaxpr(apply)(shapes[0]))

    # Seven of the eight units draw random numbers.
    draws = "name=_bernoulli"
    assert program(plain, True).count(draws) == 0
    assert program(deep, True).count(draws) == 7
    assert program(deep, False) == program(plain, False)
