import numpy as np
import pytest
import scipy.ndimage

from deeplab_jax.metrics import BoundaryMatch


def blobs(seed, size, num_classes):
    """Returns smooth random regions."""
    noise = np.random.default_rng(seed).normal(size=(num_classes, *size))
    return scipy.ndimage.gaussian_filter(noise, (0, 6, 6)).argmax(0).astype(np.uint8)


def outline(mask):
    """Returns the pixels of a mask that have a neighbor in the image but outside the mask."""
    return mask & ~scipy.ndimage.binary_erosion(mask, border_value=1)


def near(outline, other, radius):
    """Returns the number of pixels of one outline within the radius of the other."""
    if not other.any():
        return 0
    return (scipy.ndimage.distance_transform_edt(~other)[outline] <= radius).sum()


@pytest.mark.parametrize("size", [(97, 131), (300, 401), (64, 64)])
def test_counts_agree_with_distance_maps(size):
    truth, prediction = blobs(0, size, 4), blobs(0, size, 4)
    prediction = np.roll(prediction, 2, axis=1)
    prediction[:20] = blobs(1, size, 4)[:20]
    truth[30:40, 30:50] = 255
    counts = BoundaryMatch.from_labels(truth, prediction, 5).counts
    radius = 0.0075 * np.hypot(*size)
    for index in range(5):
        true = outline(truth == index)
        predicted = outline((prediction == index) & (truth != 255))
        expected = [
            predicted.sum(),
            near(predicted, true, radius),
            true.sum(),
            near(true, predicted, radius),
        ]
        np.testing.assert_array_equal(counts[index], expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (700, 2), (150, 1400), (1200, 900)])
def test_counts_agree_with_the_distances_of_all_pairs_of_pixels(size):
    random, radius = np.random.default_rng(1), 0.0075 * np.hypot(*size)
    # Sparse points have many distances around the radius.
    truth, prediction = (
        np.where(random.random(size) < 300 / np.prod(size), random.integers(1, 3, size), 0)
        for _ in range(2)
    )
    truth, prediction = truth.astype(np.uint8), prediction.astype(np.uint8)
    counts = BoundaryMatch.from_labels(truth, prediction, 3).counts
    for index in (1, 2):
        true, predicted = (np.argwhere(outline(one == index)) for one in (truth, prediction))
        offsets = predicted[:, None] - true
        meets = np.hypot(offsets[..., 0], offsets[..., 1]) <= radius
        sums = [meets.shape[0], meets.any(1).sum(), meets.shape[1], meets.any(0).sum()]
        np.testing.assert_array_equal(counts[index], sums)


def test_scores_by_hand():
    counts = np.array([[10, 5, 20, 20], [4, 0, 0, 0], [0, 0, 0, 0]])
    match = BoundaryMatch(counts)
    np.testing.assert_allclose(match.per_class_f_score, [2 / 3, 0, np.nan])
    assert match.f_score == pytest.approx(1 / 3)
    assert match.merge(match).f_score == match.f_score


def test_the_truth_itself_scores_one_and_nothing_is_unknown():
    truth = blobs(3, (120, 90), 3)
    assert BoundaryMatch.from_labels(truth, truth, 3).f_score == 1
    plain = np.zeros((9, 9), np.uint8)
    assert np.isnan(BoundaryMatch.from_labels(plain, plain, 3).f_score)
    assert np.isnan(BoundaryMatch.empty(3).f_score)
