import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from deeplab_jax.metrics import PrecisionRecall, probability_bins

NUM_CLASSES = 3


def ranked(seed, size=(29, 31)):
    """Returns truth [H, W] and probabilities [C, H, W] that are correlated with it."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, NUM_CLASSES, size)
    logits = random.normal(size=(NUM_CLASSES, *size)) + 1.5 * (
        truth == np.arange(NUM_CLASSES)[:, None, None]
    )
    truth = np.where(random.random(size) < 0.2, 255, truth).astype(np.uint8)
    return truth, np.asarray(jax.nn.softmax(jnp.float32(logits), axis=0))


def test_agrees_with_scikit_learn_on_the_quantised_probabilities():
    images = [ranked(seed) for seed in range(3)]
    total = PrecisionRecall.empty(NUM_CLASSES)
    for truth, probabilities in images:
        bins = np.asarray(probability_bins(probabilities))
        total = total.merge(PrecisionRecall.from_bins(truth, bins))
    truth = np.concatenate([truth.ravel() for truth, _ in images])
    scores = np.concatenate([scores.reshape(NUM_CLASSES, -1) for _, scores in images], axis=1)
    known = truth != 255
    for index, value in enumerate(total.per_class_average_precision):
        rank = np.minimum(np.floor(np.float32(1000) * scores[index, known]), 999)
        expected = sklearn.metrics.average_precision_score(truth[known] == index, rank)
        assert value == pytest.approx(expected, abs=1e-12)
        exact = sklearn.metrics.average_precision_score(truth[known] == index, scores[index, known])
        assert value == pytest.approx(exact, abs=0.01)


def test_a_class_that_the_truth_lacks_is_unknown():
    truth = np.array([[0, 255]], np.uint8)
    bins = np.zeros((2, 1, 2), np.uint16)
    result = PrecisionRecall.from_bins(truth, bins)
    np.testing.assert_array_equal(result.per_class_average_precision, [1, np.nan])
    assert result.pixels.sum() == 2  # One known pixel, ranked for two classes.


def test_classes_with_billions_of_pixels_have_exact_averages():
    total = PrecisionRecall.empty(2)
    total.positives[0, 999] = total.pixels[0, 999] = 5 * 10**9
    total.positives[1, 999], total.pixels[1, 999] = 4 * 10**9, 8 * 10**9
    np.testing.assert_array_equal(total.per_class_average_precision, [1, 0.5])


@pytest.mark.parametrize(("probability", "place"), [(0, 0), (0.0015, 1), (0.9995, 999), (1, 999)])
def test_bins(probability, place):
    assert probability_bins(jnp.float32(probability)) == place
