import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pixel_samples import (
    KNOWN,
    LABEL,
    LOGITS,
    NUM_CLASSES,
    PARTLY_VOID,
    SOFT,
    SOFT_PARTLY_VOID,
    WEIGHTS,
    known_pairs,
)

from deeplab_jax.losses import pixel_cross_entropy, softmax_cross_entropy

value_and_gradient = jax.jit(
    jax.value_and_grad(softmax_cross_entropy),
    static_argnames=("class_weights", "label_smoothing"),
)
# Odds of 1 : 3 and of 4 : 1; the third pixel is void.
ODDS = jnp.log(jnp.array([[[[1.0, 3.0], [4.0, 1.0], [1.0, 1.0]]]]))


def test_value_by_hand():
    label = jnp.array([[[1, 1, 255]]], jnp.uint8)
    expected = (math.log(4 / 3) + math.log(5)) / 2
    assert float(softmax_cross_entropy(ODDS, label)) == pytest.approx(expected, rel=1e-6)


def test_soft_value_by_hand():
    label = jnp.array([[[[0.0, 1.0], [0.25, 0.75], [0.0, 0.0]]]])
    expected = (math.log(4 / 3) + 0.25 * math.log(5 / 4) + 0.75 * math.log(5)) / 2
    assert float(softmax_cross_entropy(ODDS, label)) == pytest.approx(expected, rel=1e-6)


def test_smoothed_and_weighted_value_by_hand():
    label = jnp.array([[[1, 1, 255]]], jnp.uint8)
    found = softmax_cross_entropy(ODDS, label, class_weights=(3.0, 0.5), label_smoothing=0.2)
    first = 0.9 * 0.5 * math.log(4 / 3) + 0.1 * 3 * math.log(4)
    second = 0.9 * 0.5 * math.log(5) + 0.1 * 3 * math.log(5 / 4)
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)


def test_value_and_gradient_agree_with_optax():
    def reference(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABEL.astype(int)).mean()

    value, gradient = value_and_gradient(LOGITS, LABEL)
    expected, expected_gradient = jax.value_and_grad(reference)(LOGITS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-8)


def test_soft_smoothed_values_agree_with_optax():
    value, gradient = value_and_gradient(LOGITS, SOFT, label_smoothing=0.3)
    expected, expected_gradient = jax.value_and_grad(
        lambda logits: optax.softmax_cross_entropy(logits, optax.smooth_labels(SOFT, 0.3)).mean()
    )(LOGITS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
def test_values_and_gradients_agree_with_torch(weights, smoothing, soft):
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS.reshape(-1, NUM_CLASSES), dtype=torch.float64, requires_grad=True)
    label = SOFT_PARTLY_VOID.reshape(-1, NUM_CLASSES) if soft else PARTLY_VOID.ravel()
    known = torch.tensor(KNOWN.ravel())
    pixels = torch.nn.functional.cross_entropy(
        logits[known],
        torch.tensor(label, dtype=torch.float64 if soft else torch.int64)[known],
        None if weights is None else torch.tensor(weights, dtype=torch.float64),
        reduction="none",
        label_smoothing=smoothing,
    )
    pixels.mean().backward()
    value, gradient = value_and_gradient(
        LOGITS,
        SOFT_PARTLY_VOID if soft else PARTLY_VOID,
        class_weights=weights,
        label_smoothing=smoothing,
    )
    np.testing.assert_allclose(value, pixels.mean().item(), rtol=1e-6)
    np.testing.assert_allclose(
        gradient, logits.grad.numpy().reshape(LOGITS.shape), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int16])
def test_integers_of_any_width_are_labels(dtype):
    found = softmax_cross_entropy(LOGITS, PARTLY_VOID.astype(dtype))
    assert found == softmax_cross_entropy(LOGITS, PARTLY_VOID)


def test_class_weights_scale_the_pixels_of_their_class():
    found = softmax_cross_entropy(LOGITS, PARTLY_VOID, class_weights=WEIGHTS)
    pixels = [
        WEIGHTS[label] * -math.log(probabilities[label])
        for probabilities, label in known_pairs(LOGITS, PARTLY_VOID)
    ]
    np.testing.assert_allclose(found, np.mean(pixels), rtol=1e-5)


def test_large_logits_keep_their_differences():
    exact = pixel_cross_entropy(LOGITS, PARTLY_VOID)
    far = np.round(LOGITS, 3).astype(np.float32) + np.float32(8192)
    found = pixel_cross_entropy(far, PARTLY_VOID)
    expected = pixel_cross_entropy(far - np.float32(8192), PARTLY_VOID)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_logits_of_minus_infinity_give_finite_losses():
    logits = np.where(np.arange(NUM_CLASSES) == 3, -np.inf, LOGITS)
    label = np.where(PARTLY_VOID == 3, 255, PARTLY_VOID)
    one_hot = (label[..., None] == np.arange(NUM_CLASSES)).astype(np.float32)
    expected, expected_gradient = value_and_gradient(LOGITS[..., :3], label)
    for form in (label, one_hot):
        value, gradient = value_and_gradient(logits, form)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[..., :3], expected_gradient, rtol=0, atol=1e-8)
