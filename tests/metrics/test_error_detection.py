import numpy as np
import pytest
import sklearn.metrics

from deeplab_jax.metrics import ErrorDetection


def scores_and_errors(seed, count=20000, scale=1.0):
    random = np.random.default_rng(seed)
    wrong = random.random(count) < 0.2
    scores = scale * random.beta(2, np.where(wrong, 3, 9)).astype(np.float32)
    return wrong, scores.astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-7])
def test_the_metrics_equal_those_of_scikit_learn(scale):
    wrong, scores = scores_and_errors(0, scale=scale)
    parts = ErrorDetection.empty()
    for rows in np.array_split(np.arange(len(wrong)), 7):
        parts = parts.add(wrong[rows], scores[rows])
    auroc = sklearn.metrics.roc_auc_score(wrong, scores)
    aupr = sklearn.metrics.average_precision_score(wrong, scores)
    assert parts.auroc == pytest.approx(auroc, abs=1e-6)
    # Scores that differ by less than 1/8192 of their value are equal.
    assert parts.aupr == pytest.approx(aupr, abs=1e-4)
    assert parts.error_rate == pytest.approx(wrong.mean())


def test_scores_of_few_values_give_equal_metrics():
    wrong, scores = scores_and_errors(1)
    rounded = np.round(scores * 8).astype(np.float32) / 8
    found = ErrorDetection.empty().add(wrong, rounded)
    auroc = sklearn.metrics.roc_auc_score(wrong, rounded)
    assert found.auroc == pytest.approx(auroc, abs=1e-12)
    aupr = sklearn.metrics.average_precision_score(wrong, rounded)
    assert found.aupr == pytest.approx(aupr, abs=1e-12)


def test_hostile_scores():
    wrong = np.array([True, False, True, False])
    found = ErrorDetection.empty().add(wrong, np.array([1.0, 0.0, 1.5, -0.0], np.float32))
    assert (found.auroc, found.aupr, found.error_rate) == (1, 1, 0.5)
    assert ErrorDetection.empty().add(wrong, np.zeros(4, np.float32)).auroc == 0.5
    right = ErrorDetection.empty().add(np.zeros(3, bool), np.ones(3, np.float32))
    assert np.isnan([right.auroc, right.aupr]).all()
    assert right.error_rate == 0
    assert np.isnan(ErrorDetection.empty().error_rate)
