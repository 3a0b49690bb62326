import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pixel_samples import LOGITS, PARTLY_VOID, SOFT_PARTLY_VOID, WEIGHTS, known_pairs, softmax

from deeplab_jax.losses import focal_loss, softmax_cross_entropy


def test_value_by_hand():
    # p = 0.75 and 0.2; the third pixel is void.
    logits = jnp.log(jnp.array([[[[1.0, 3.0], [4.0, 1.0], [1.0, 1.0]]]]))
    label = jnp.array([[[1, 1, 255]]], jnp.uint8)
    expected = (0.25**2 * np.log(4 / 3) + 0.8**2 * np.log(5)) / 2
    assert float(focal_loss(logits, label)) == pytest.approx(expected, rel=1e-6)
    weighted = focal_loss(logits, label, alpha=(9.0, 0.25))
    assert float(weighted) == pytest.approx(expected / 4, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [(1.0,) * 4, WEIGHTS])
def test_value_agrees_with_a_loop(gamma, alpha):
    pixels = [
        alpha[label] * (1 - odds[label]) ** gamma * -np.log(odds[label])
        for odds, label in known_pairs(LOGITS, PARTLY_VOID)
    ]
    found = focal_loss(LOGITS, PARTLY_VOID, gamma=gamma, alpha=alpha)
    np.testing.assert_allclose(found, np.mean(pixels), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_soft_labels_share_out_the_losses_of_the_classes(gamma):
    total, count = 0.0, 0
    for probabilities, shares in zip(
        softmax(LOGITS).reshape(-1, 4), SOFT_PARTLY_VOID.reshape(-1, 4), strict=True
    ):
        count += shares.any()
        for p, share, weight in zip(probabilities, shares, WEIGHTS, strict=True):
            total -= weight * share * (1 - p) ** gamma * np.log(p)
    found = focal_loss(LOGITS, SOFT_PARTLY_VOID, gamma=gamma, alpha=WEIGHTS)
    np.testing.assert_allclose(found, total / count, rtol=1e-5)


def test_gamma_of_0_is_cross_entropy():
    found = jax.value_and_grad(lambda x: focal_loss(x, PARTLY_VOID, gamma=0.0))(LOGITS)
    expected = jax.value_and_grad(softmax_cross_entropy)(LOGITS, PARTLY_VOID)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-7)


def test_two_classes_are_the_sigmoid_form_of_optax():
    logits, positive = LOGITS[..., 0], PARTLY_VOID == 1
    found = focal_loss(np.stack([0 * logits, logits], -1), positive.astype(int), gamma=1.5)
    expected = optax.sigmoid_focal_loss(logits, positive.astype(float), gamma=1.5).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_class_with_proportion_0_may_have_the_logit_minus_infinity():
    present = np.arange(LOGITS.shape[-1]) != 3
    label = np.where(present, SOFT_PARTLY_VOID, 0)
    # exp(−100) is 0 in float32.
    expected, expected_gradient = jax.value_and_grad(focal_loss)(
        np.where(present, LOGITS, -100).astype(np.float32), label
    )
    value, gradient = jax.value_and_grad(focal_loss)(np.where(present, LOGITS, -np.inf), label)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-8)
