import itertools
from functools import partial

import jax
import numpy as np
import pytest
from pixel_samples import KNOWN, LABEL, LOGITS, ONE_HOT, PARTLY_VOID, softmax

from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses import lovasz_softmax
from deeplab_jax.losses.overlap import jaccard_weights
from deeplab_jax.metrics import ConfusionMatrix

THREE_CLASSES = np.where(PARTLY_VOID == 3, 255, PARTLY_VOID)
CLAIMED = np.roll(LABEL, 2, axis=1)


def jaccard_loss(truth, wrong):
    """1 − IoU of a class whose wrong pixels are these: a function of sets."""
    union = truth | (wrong - truth)
    return len(wrong) / len(union) if union else 0.0


def lovasz_extension(truth, errors):
    """∫ loss({errors ≥ t}) dt from 0 to 1: the definition, with no sorting of pixels."""
    levels = sorted({0.0, *errors})
    return sum(
        (high - low) * jaccard_loss(truth, {i for i, error in enumerate(errors) if error >= high})
        for low, high in itertools.pairwise(levels)
    )


def by_definition(logits, label, present_only=True):
    losses, known = [], label != 255
    for index in range(logits.shape[-1]):
        is_true = label[known] == index
        probability = softmax(logits[known])[:, index]
        errors = np.where(is_true, 1 - probability, probability).tolist()
        if is_true.any() or not present_only:
            losses.append(lovasz_extension(set(np.flatnonzero(is_true).tolist()), errors))
    return np.mean(losses)


def test_value_by_hand():
    # Errors of class 0: 0.4 where it is true, 0.5 where it is not; of class 1: 0.4, 0.5 (true).
    logits = np.log([[[[0.6, 0.4], [0.5, 0.5]]]]).astype(np.float32)
    label = np.array([[[0, 1]]], np.uint8)
    # Class 0: 0.5·(1/2) + 0.4·(1/2); class 1: 0.5·1 + 0.4·0.
    found = jax.jit(lovasz_softmax)(logits, label)
    assert float(found) == pytest.approx((0.45 + 0.5) / 2, rel=1e-6)


@pytest.mark.parametrize("label", [LABEL, PARTLY_VOID, THREE_CLASSES])
@pytest.mark.parametrize("present_only", [True, False])
def test_value_is_the_lovasz_extension_of_the_jaccard_loss(label, present_only):
    found = jax.jit(partial(lovasz_softmax, present_only=present_only))(LOGITS, label)
    np.testing.assert_allclose(found, by_definition(LOGITS, label, present_only), rtol=1e-5)


def test_ties_do_not_matter():
    logits = np.round(LOGITS / 3)
    found = lovasz_softmax(logits, PARTLY_VOID)
    np.testing.assert_allclose(found, by_definition(logits, PARTLY_VOID), rtol=1e-5)


def test_per_image_is_the_mean_of_the_images_that_are_not_all_void():
    label = np.concatenate([PARTLY_VOID, np.full_like(LABEL[:1], 255)])
    logits = np.concatenate([LOGITS, LOGITS[:1]])
    found = jax.jit(partial(lovasz_softmax, per_image=True))(logits, label)
    images = zip(LOGITS[:, None], PARTLY_VOID[:, None], strict=True)
    np.testing.assert_allclose(
        found, np.mean([by_definition(*image) for image in images]), rtol=1e-5
    )


def test_hard_predictions_cost_one_minus_iou():
    logits = 2e4 * (CLAIMED[..., None] == np.arange(4)).astype(np.float32) - 1e4
    found = lovasz_softmax(logits, PARTLY_VOID)
    mean_iou = ConfusionMatrix.from_labels(PARTLY_VOID, CLAIMED, 4).mean_iou
    assert float(found) == pytest.approx(1 - mean_iou, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_weights_are_the_increments_of_the_jaccard_loss(share):
    random = np.random.default_rng(3)
    errors = random.permutation(200).astype(np.float32) / 200
    truth, known = random.random(200) < share, random.random(200) < 0.8
    truth &= known
    found = np.asarray(jax.jit(jaccard_weights)(errors, truth, known))
    true, wrong, before = set(np.flatnonzero(truth).tolist()), set(), 0.0
    for index in np.argsort(-errors):
        if known[index]:
            wrong.add(int(index))
            after = jaccard_loss(true, wrong)
            assert found[index] == pytest.approx(after - before, rel=1e-5, abs=1e-9)
            before = after


def test_weights_of_a_large_image_keep_their_precision():
    """Differences of Jaccard losses in float32 would have errors of several percent here."""
    size = 400_000
    random = np.random.default_rng(4)
    errors, truth = random.permutation(size).astype(np.float32) / size, random.random(size) < 0.3
    found = np.asarray(jax.jit(jaccard_weights)(errors, truth, np.ones(size, bool)))
    order = np.argsort(-errors)
    missed = np.cumsum(truth[order])
    loss = 1 - (truth.sum() - missed) / (truth.sum() + np.arange(1, size + 1) - missed)
    np.testing.assert_allclose(found[order], np.diff(loss, prepend=0), rtol=1e-5, atol=1e-14)


def test_soft_labels_are_refused():
    with pytest.raises(DeepLabError, match="requires an integer label"):
        lovasz_softmax(LOGITS, ONE_HOT)


@pytest.mark.parametrize("per_image", [False, True])
def test_a_step_down_the_gradient_lowers_the_loss(per_image):
    loss = jax.jit(jax.value_and_grad(partial(lovasz_softmax, per_image=per_image)))
    before, gradient = loss(LOGITS, PARTLY_VOID)
    after, _ = loss(LOGITS - 5 * gradient, PARTLY_VOID)
    assert after < before
    assert not np.any(gradient[~KNOWN])
