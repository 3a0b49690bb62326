import numpy as np
import pytest
import scipy.stats

from deeplab_jax.metrics import ConfusionMatrix, paired_change


def matrices(seed, images, accuracy):
    random = np.random.default_rng(seed)
    right = random.binomial(500, accuracy, (images, 3))
    counts = random.integers(0, 20, (images, 3, 3))
    counts[:, range(3), range(3)] = right
    return counts


def mean_iou(counts):
    return ConfusionMatrix(counts).mean_iou


def test_agrees_with_scipy_on_a_ratio():
    before, after = matrices(0, 60, 0.7), matrices(1, 60, 0.75)
    change = paired_change(before, after, mean_iou, resamples=4000)

    def statistic(index):
        return mean_iou(after[index].sum(0)) - mean_iou(before[index].sum(0))

    expected = scipy.stats.bootstrap(
        (np.arange(60),),
        statistic,
        n_resamples=4000,
        vectorized=False,
        method="percentile",
        # Called rng since SciPy 1.15.
        random_state=np.random.default_rng(2),
    ).confidence_interval
    assert change.difference == pytest.approx(statistic(np.arange(60)))
    width = expected.high - expected.low
    assert change.low == pytest.approx(expected.low, abs=0.08 * width)
    assert change.high == pytest.approx(expected.high, abs=0.08 * width)


def test_is_seeded_paired_and_antisymmetric():
    before, after = matrices(0, 20, 0.5), matrices(1, 20, 0.6)
    change = paired_change(before, after, mean_iou)
    assert paired_change(before, after, mean_iou) == change
    assert paired_change(before, after, mean_iou, seed=1) != change
    assert paired_change(before, before, mean_iou) == (0, 0, 0)
    back = paired_change(after, before, mean_iou)
    assert np.allclose(back, [-change.difference, -change.high, -change.low])
    assert change.low < change.difference < change.high


def test_changes_without_pixels_are_nan():
    nothing = np.zeros((4, 2, 2), int)
    assert np.isnan(paired_change(nothing, nothing, mean_iou)).all()
    one = np.eye(2, dtype=int)[None]
    assert paired_change(one, one, mean_iou) == (0, 0, 0)
