"""Metrics for 255, 256 and 300 classes compared with counting pixel by pixel."""

import numpy as np
import pytest
import scipy.ndimage

from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.metrics import (
    NUM_BINS,
    BoundaryMatch,
    ConfusionMatrix,
    PrecisionRecall,
    TrimapConfusion,
)

SIZE = (21, 34)
counts = pytest.mark.parametrize("count", [255, 256, 300])


def sample(count):
    """Returns truth with void, and prediction; the classes include 43, 255 and the last one."""
    random = np.random.default_rng(count)
    # Few classes, so that regions have insides: blobs of the pixels' largest of few noises.
    used = np.array(sorted({0, 43, min(255, count - 1), count - 2, count - 1}))
    noise = random.normal(size=(2, len(used), *SIZE))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 0, 2, 2)).argmax(1)
    truth, prediction = used[smooth].astype(label_dtype(count))
    truth[8:11, 5:20] = void_label(count)
    return truth, prediction


def brute_force(truth, prediction, count, counted):
    matrix = np.zeros((count, count), np.int64)
    for true, predicted, known in zip(
        truth.ravel(), prediction.ravel(), counted.ravel(), strict=True
    ):
        if known:
            matrix[true, predicted] += 1
    return matrix


@counts
@pytest.mark.parametrize("dtypes", [(None, None), (np.int64, None), (None, np.int32)])
def test_confusion_matrix(count, dtypes):
    truth, prediction = sample(count)
    expected = brute_force(truth, prediction, count, truth != void_label(count))
    given = [
        array if dtype is None else array.astype(dtype)
        for array, dtype in zip((truth, prediction), dtypes, strict=True)
    ]
    found = ConfusionMatrix.from_labels(*given, count)
    assert np.array_equal(found.counts, expected)
    assert found.num_pixels == truth.size - 45
    assert found.counts[count - 1].sum() > 0
    if count > 255:
        # A class, not void.
        assert found.counts[255].sum() == (truth == 255).sum() > 0


def test_299_for_43_scores_0():
    truth = np.full(SIZE, 43, np.uint16)
    found = ConfusionMatrix.from_labels(truth, np.full(SIZE, 299, np.uint16), 300)
    assert found.counts[43, 299] == truth.size
    assert found.mean_iou == found.pixel_accuracy == 0


def test_values_that_are_neither_class_nor_void_are_refused():
    classes = np.zeros((1, 2), np.uint16)
    for wrong in (300, 65534):
        with pytest.raises(ValueError, match=r"0\.\.299, or 65535 for void"):
            ConfusionMatrix.from_labels(np.array([[0, wrong]], np.uint16), classes, 300)
    with pytest.raises(ValueError, match=r"0\.\.254, or 255 for void"):
        ConfusionMatrix.from_labels(np.array([[0, 65535]], np.uint16), classes, 255)


@counts
def test_average_precision(count):
    truth, _ = sample(count)
    random = np.random.default_rng(0)
    bins = random.integers(0, NUM_BINS, (count, *SIZE)).astype(np.uint16)
    found = PrecisionRecall.from_bins(truth, bins)
    known = truth != void_label(count)
    for one in (0, 43, count - 2, count - 1):
        expected = [
            np.bincount(bins[one][mask], minlength=NUM_BINS)
            for mask in (known & (truth == one), known)
        ]
        assert np.array_equal(found.positives[one], expected[0])
        assert np.array_equal(found.pixels[one], expected[1])
    assert found.positives.sum() == known.sum()


@counts
def test_trimap(count):
    truth, prediction = sample(count)
    void = truth == void_label(count)
    found = TrimapConfusion.empty(count, (1, 3)).add(truth, prediction)
    for position, width in enumerate((1, 3)):
        band = scipy.ndimage.binary_dilation(void, np.ones((2 * width + 1,) * 2)) & ~void
        expected = brute_force(truth, prediction, count, band)
        assert expected.sum() > 0
        assert np.array_equal(found.counts[position], expected)


def edge_of(mask):
    return mask & ~scipy.ndimage.binary_erosion(mask, border_value=1)


@counts
def test_boundary(count):
    truth, prediction = sample(count)
    found = BoundaryMatch.from_labels(truth, prediction, count).counts
    radius, known = 0.0075 * np.hypot(*SIZE), truth != void_label(count)
    assert radius < 1
    for one in range(count):
        true, predicted = edge_of(truth == one), edge_of((prediction == one) & known)
        met = (true & predicted).sum()
        assert found[one].tolist() == [predicted.sum(), met, true.sum(), met]
    assert found[count - 1].sum() > 0


def test_boundary_of_narrow_predictions():
    """Predictions that contain only small class numbers may be uint8."""
    truth, prediction = sample(300)
    prediction = np.where(prediction > 255, 43, prediction)
    wide = BoundaryMatch.from_labels(truth, prediction.astype(np.int32), 300).counts
    narrow = BoundaryMatch.from_labels(truth, prediction.astype(np.uint8), 300).counts
    assert np.array_equal(narrow, wide)
