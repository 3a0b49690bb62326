import numpy as np
import pytest
import sklearn.metrics

from deeplab_jax.metrics import ConfusionMatrix


@pytest.fixture(scope="module")
def labels():
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, (3, 37, 41))
    prediction = np.where(
        random.random(truth.shape) < 0.7, truth, random.integers(0, 5, truth.shape)
    )
    return np.where(random.random(truth.shape) < 0.1, 255, truth).astype(np.uint8), prediction


def test_counts_and_measures_agree_with_scikit_learn(labels):
    truth, prediction = labels
    known = truth != 255
    pair = truth[known], prediction[known]
    matrix = ConfusionMatrix.from_labels(truth, prediction, 5)
    np.testing.assert_array_equal(matrix.counts, sklearn.metrics.confusion_matrix(*pair))
    weighted = sklearn.metrics.jaccard_score(*pair, average="weighted")
    assert matrix.mean_iou == pytest.approx(sklearn.metrics.jaccard_score(*pair, average="macro"))
    assert matrix.mean_dice == pytest.approx(sklearn.metrics.f1_score(*pair, average="macro"))
    assert matrix.pixel_accuracy == pytest.approx(sklearn.metrics.accuracy_score(*pair))
    assert matrix.mean_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(*pair))
    assert matrix.frequency_weighted_iou == pytest.approx(weighted)
    assert matrix.num_pixels == known.sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_parts_merge_to_the_whole(labels, dtype):
    truth, prediction = labels
    total = ConfusionMatrix.empty(5)
    for one_truth, one_prediction in zip(truth, prediction, strict=True):
        total = total.merge(ConfusionMatrix.from_labels(one_truth, one_prediction.astype(dtype), 5))
    whole = ConfusionMatrix.from_labels(truth, prediction, 5)
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert total.counts.dtype == np.int64


def test_absent_classes_are_left_out_of_the_means():
    # By hand: class 0 is half right, class 1 is only predicted, classes 2 and 3 do not occur.
    matrix = ConfusionMatrix.from_labels(np.array([0, 0, 255]), np.array([0, 1, 3]), 4)
    np.testing.assert_array_equal(matrix.per_class_iou, [0.5, 0, np.nan, np.nan])
    np.testing.assert_array_equal(matrix.per_class_accuracy, [0.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(matrix.per_class_dice, [2 / 3, 0, np.nan, np.nan])
    assert matrix.mean_iou == 0.25
    assert matrix.mean_accuracy == 0.5


def test_of_no_pixel_nothing_is_known():
    matrix = ConfusionMatrix.from_labels(np.array([255]), np.array([0]), 2)
    assert np.isnan([matrix.mean_iou, matrix.pixel_accuracy, matrix.mean_accuracy]).all()


@pytest.mark.parametrize(
    ("truth", "prediction", "reason"),
    [
        ([2], [0], "values of truth"),
        ([254], [0], "values of truth"),
        ([-1], [1], "values of truth"),
        ([-2], [0], "values of truth"),
        ([0], [2], "values of prediction"),
        ([0], [-1], "values of prediction"),
        ([0, 1], [0], "same shape"),
    ],
)
def test_illegal_labels_are_refused(truth, prediction, reason):
    with pytest.raises(ValueError, match=reason):
        ConfusionMatrix.from_labels(np.array(truth), np.array(prediction), 2)
