import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplab_jax.losses import softmax_cross_entropy, valid_pixels

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 3, (2, 5, 7, 4)).astype(np.float32)
LABEL = RANDOM.integers(0, 4, (2, 5, 7)).astype(np.uint8)
PARTLY_VOID = np.where(RANDOM.random(LABEL.shape) < 0.3, 255, LABEL).astype(np.uint8)

value_and_gradient = jax.jit(jax.value_and_grad(softmax_cross_entropy))


def test_value_by_hand():
    # Odds of 1 : 3 and of 4 : 1; the third pixel is void.
    logits = jnp.log(jnp.array([[[[1.0, 3.0], [4.0, 1.0], [1.0, 1.0]]]]))
    label = jnp.array([[[1, 1, 255]]], jnp.uint8)
    expected = (math.log(4 / 3) + math.log(5)) / 2
    assert float(softmax_cross_entropy(logits, label)) == pytest.approx(expected, rel=1e-6)


def test_value_and_gradient_agree_with_optax():
    def reference(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABEL.astype(int)).mean()

    value, gradient = value_and_gradient(LOGITS, LABEL)
    expected, expected_gradient = jax.value_and_grad(reference)(LOGITS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_void_pixels_are_as_if_they_were_not_there(dtype):
    value, gradient = value_and_gradient(LOGITS, PARTLY_VOID.astype(dtype))
    known = PARTLY_VOID != 255
    subset = value_and_gradient(LOGITS[known][None, None], LABEL[known][None, None])
    np.testing.assert_allclose(value, subset[0], rtol=1e-6)
    np.testing.assert_allclose(gradient[known], subset[1][0, 0], rtol=0, atol=1e-8)
    assert not np.any(gradient[~known])


@pytest.mark.parametrize("scale", [1, 1e30])
def test_a_batch_that_is_all_void_has_no_loss_and_no_gradient(scale):
    value, gradient = value_and_gradient(LOGITS * scale, np.full_like(LABEL, 255))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(LOGITS))


def test_class_weights_scale_the_pixels_of_their_class():
    weights = np.array([0.5, 0, 2, 1], np.float32)
    found = softmax_cross_entropy(LOGITS, PARTLY_VOID, class_weights=tuple(weights.tolist()))
    log_odds = np.asarray(jax.nn.log_softmax(LOGITS))
    known = PARTLY_VOID != 255
    pixels = [
        weights[label] * -odds[label]
        for odds, label in zip(log_odds[known], PARTLY_VOID[known], strict=True)
    ]
    np.testing.assert_allclose(found, np.mean(pixels), rtol=1e-5)


def test_large_logits_stay_finite():
    value, gradient = value_and_gradient(LOGITS * 1e4, PARTLY_VOID)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_parts_with_the_normalizer_of_the_whole_add_up():
    whole = softmax_cross_entropy(LOGITS, PARTLY_VOID)
    count = valid_pixels(PARTLY_VOID)
    parts = [
        softmax_cross_entropy(*part, count)
        for part in zip(LOGITS[:, None], PARTLY_VOID[:, None], strict=True)
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)
    assert float(count) == (PARTLY_VOID != 255).sum()
