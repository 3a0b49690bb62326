import numpy as np
import pytest
import scipy.ndimage
import sklearn.metrics

from deeplab_jax.errors import DeepLabError
from deeplab_jax.metrics import TrimapConfusion


def labels(seed, size, void):
    random = np.random.default_rng(seed)
    truth = np.where(random.random(size) < void, 255, random.integers(0, 4, size))
    return truth.astype(np.uint8), random.integers(0, 4, size).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "void"), [((37, 53), 0.01), ((64, 1), 0.05), ((31, 30), 0.5), ((9, 9), 1)]
)
def test_counts_agree_with_a_dilation(size, void):
    truth, prediction = labels(0, size, void)
    trimap = TrimapConfusion.empty(4, [1, 2, 10]).add(truth, prediction)
    for width, counts in zip(trimap.widths, trimap.counts, strict=True):
        square = np.ones((2 * width + 1, 2 * width + 1), bool)
        band = scipy.ndimage.binary_dilation(truth == 255, square) & (truth != 255)
        expected = np.zeros((4, 4), int)
        np.add.at(expected, (truth[band], prediction[band]), 1)
        np.testing.assert_array_equal(counts, expected)


def test_matrices_of_images_add_up_to_one_mean_iou_a_width():
    images = [labels(seed, (40 + seed, 33), 0.02) for seed in range(3)]
    trimap = TrimapConfusion.empty(4, (3, 1, 3))
    parts = []
    for image in images:
        parts.append(trimap.add(*image))
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert list(merged.mean_iou) == [1, 3]
    truth, prediction = [], []
    for image in images:
        square = np.ones((7, 7), bool)
        band = scipy.ndimage.binary_dilation(image[0] == 255, square) & (image[0] != 255)
        truth.append(image[0][band])
        prediction.append(image[1][band])
    expected = sklearn.metrics.jaccard_score(
        np.concatenate(truth), np.concatenate(prediction), average="macro"
    )
    assert merged.mean_iou[3] == pytest.approx(expected)


def test_without_void_there_is_no_trimap_band():
    truth, prediction = labels(0, (20, 20), 0)
    trimap = TrimapConfusion.empty(4, (5,)).add(truth, prediction)
    assert np.isnan(trimap.mean_iou[5])
    assert TrimapConfusion.empty(4, ()).add(truth, prediction).mean_iou == {}


def test_widths_may_be_integers_of_numpy():
    widths = TrimapConfusion.empty(2, np.arange(1, 4)).widths
    assert widths == (1, 2, 3)
    assert {type(width) for width in widths} == {int}


@pytest.mark.parametrize("width", [0, -1, 1.5, 2000])
def test_illegal_widths_are_refused(width):
    with pytest.raises(DeepLabError, match=r"an integer in 1\.\.1000"):
        TrimapConfusion.empty(2, (1, width))
