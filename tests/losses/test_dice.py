import jax.numpy as jnp
import numpy as np
import pytest
from pixel_samples import KNOWN, LABEL, LOGITS, PARTLY_VOID, SOFT_PARTLY_VOID, softmax

from deeplab_jax.losses import dice_loss
from deeplab_jax.metrics import ConfusionMatrix

# Class 3 is nowhere in the truth.
THREE_CLASSES = np.where(PARTLY_VOID == 3, 255, PARTLY_VOID)


def test_value_by_hand():
    logits = jnp.log(jnp.array([[[[1.0, 3.0], [4.0, 1.0], [1.0, 1.0]]]]))
    label = jnp.array([[[1, 0, 255]]], jnp.uint8)
    first = 1 - 2 * 0.8 / (1.05 + 1)
    second = 1 - 2 * 0.75 / (0.95 + 1)
    found = dice_loss(logits, label, smooth=0.0)
    assert float(found) == pytest.approx((first + second) / 2, rel=1e-6)
    found = dice_loss(logits, label, smooth=0.5)
    smoothed = [1 - 2.1 / 2.55, 1 - 2 / 2.45]
    assert float(found) == pytest.approx(np.mean(smoothed), rel=1e-6)


def by_loops(label, smooth, present_only):
    """The loss of soft or integer labels, a pixel at a time."""
    distances = []
    for index in range(4):
        overlap = true = predicted = 0.0
        for pixel in np.ndindex(*LABEL.shape):
            share = label[pixel][index] if label.ndim == 4 else float(label[pixel] == index)
            if np.all(label[pixel] == (0 if label.ndim == 4 else 255)):
                continue
            probability = softmax(LOGITS[pixel])[index]
            overlap += share * probability
            true += share
            predicted += probability
        if true or not present_only:
            distances.append(1 - (2 * overlap + smooth) / (true + predicted + smooth))
    return np.mean(distances)


@pytest.mark.parametrize("label", [PARTLY_VOID, THREE_CLASSES, SOFT_PARTLY_VOID])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("present_only", [True, False])
def test_value_agrees_with_loops(label, smooth, present_only):
    found = dice_loss(LOGITS, label, smooth=smooth, present_only=present_only)
    np.testing.assert_allclose(found, by_loops(label, smooth, present_only), rtol=1e-5)


def test_hard_predictions_cost_one_minus_the_dice_measure():
    claimed = np.roll(LABEL, 2, axis=1)
    logits = 1e4 * (claimed[..., None] == np.arange(4)).astype(np.float32)
    measure = ConfusionMatrix.from_labels(PARTLY_VOID, claimed, 4).mean_dice
    assert float(dice_loss(logits, PARTLY_VOID, smooth=0.0)) == pytest.approx(1 - measure, rel=1e-6)


def test_dice_of_a_class_absent_from_both_sides_is_1():
    logits = 1e4 * (np.zeros_like(LABEL)[..., None] == np.arange(4)).astype(np.float32)
    label = np.where(KNOWN, 0, 255).astype(np.uint8)
    assert dice_loss(logits, label, smooth=0.0, present_only=False) == 0
