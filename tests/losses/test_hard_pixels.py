from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_samples import KNOWN, LOGITS, PARTLY_VOID, WEIGHTS, known_pairs

from deeplab_jax.losses import hard_pixel_cross_entropy, hard_pixel_fraction, softmax_cross_entropy
from deeplab_jax.losses.cross_entropy import hardest


@pytest.mark.parametrize(
    ("step", "mining_step", "expected"),
    [(0, 0, 0.25), (7, 0, 0.25), (0, 100, 1), (50, 100, 0.625), (100, 100, 0.25), (900, 100, 0.25)],
)
def test_the_hard_pixel_fraction_falls_linearly(step, mining_step, expected):
    found = jax.jit(lambda step: hard_pixel_fraction(step, 0.25, mining_step))(step)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_value_by_hand():
    # Losses log 2, log 4, log 4/3 and a void pixel: half of four pixels are kept.
    logits = jnp.log(jnp.array([[[[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [1.0, 9.0]]]]))
    label = jnp.array([[[0, 0, 0, 255]]], jnp.uint8)
    half = hard_pixel_cross_entropy(logits, label, fraction=0.5)
    assert float(half) == pytest.approx(np.log([2, 4]).mean(), rel=1e-6)


def mean_of_hardest(share, weights):
    """The released code's formula, over a sorted list."""
    pairs = known_pairs(LOGITS, PARTLY_VOID)
    losses = [-np.log(probabilities[label]) * weights[label] for probabilities, label in pairs]
    kept = sorted(losses, reverse=True)[: max(int(share * KNOWN.size), 1)]
    return sum(kept) / max(sum(loss != 0 for loss in kept), 1)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.25, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("weights", [(1.0,) * 4, WEIGHTS])
def test_value_agrees_with_a_sorted_list(share, weights):
    loss = jax.jit(hard_pixel_cross_entropy, static_argnames="class_weights")
    found = loss(LOGITS, PARTLY_VOID, class_weights=weights, fraction=share)
    np.testing.assert_allclose(found, mean_of_hardest(share, weights), rtol=1e-5)


def test_all_pixels_are_the_mean_of_all():
    found = jax.value_and_grad(partial(hard_pixel_cross_entropy, fraction=1.0))(LOGITS, PARTLY_VOID)
    expected = jax.value_and_grad(softmax_cross_entropy)(LOGITS, PARTLY_VOID)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-8)


def test_only_the_kept_pixels_have_a_gradient():
    gradient = jax.grad(partial(hard_pixel_cross_entropy, fraction=0.1))(LOGITS, PARTLY_VOID)
    assert np.any(gradient, axis=-1).sum() == int(0.1 * KNOWN.size)


@pytest.mark.parametrize("count", [1, 2, 3, 50, 99, 100])
@pytest.mark.parametrize("kind", ["wide", "ties", "zeros"])
def test_hardest_are_those_of_a_sort(count, kind):
    random = np.random.default_rng(count)
    values = {
        "wide": np.append(np.exp(random.normal(0, 20, 97)), [1e-44, 3e38, np.inf]),
        "ties": random.integers(0, 5, 100) / 3,
        "zeros": np.where(np.arange(100) < 2, 1.0, -0.0),
    }[kind].astype(np.float32)
    found = np.asarray(jax.jit(hardest)(values.reshape(4, 25), count)).ravel()
    last = np.sort(values)[-count]
    np.testing.assert_array_equal(found[values > last], 1)
    np.testing.assert_array_equal(found[values < last], 0)
    assert len(set(found[values == last].tolist())) == 1
    assert found.sum() == pytest.approx(count, rel=1e-6)
