import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from deeplab_jax.errors import DeepLabError
from deeplab_jax.metrics import CalibrationCounts


def random_pixels(seed, shape=(40, 50), classes=5, sharpness=3.0, void=0.2):
    """Returns truth, prediction and float32 probabilities of noise."""
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(*shape, classes))
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)
    prediction = probabilities.argmax(axis=-1)
    truth = np.where(random.random(shape) < 0.7, prediction, random.integers(0, classes, shape))
    return np.where(random.random(shape) < void, 255, truth), prediction, probabilities


def counted(*images, bins=15):
    total = CalibrationCounts.empty(images[0][2].shape[-1], bins)
    for image in images:
        total = total.add(*image)
    return total


def brute_force_error(positive, probability, bins):
    """Returns the calibration error of one row, pixel by pixel and bin by bin."""
    edges, error = np.linspace(0, 1, bins + 1), 0.0
    for index in range(bins):
        inside = (probability > edges[index]) & (probability <= edges[index + 1])
        if index == 0:
            inside |= probability == 0
        if inside.any():
            gap = positive[inside].mean() - probability[inside].mean()
            error += inside.mean() * abs(gap)
    return error


def valid_pixels(*images):
    keep = [truth != 255 for truth, _, _ in images]
    return tuple(
        np.concatenate([image[part][valid] for image, valid in zip(images, keep, strict=True)])
        for part in range(3)
    )


CASES = {
    "noise": [random_pixels(0), random_pixels(1, (3, 7))],
    "sharp": [random_pixels(2, sharpness=60.0)],
    "flat": [random_pixels(3, sharpness=0.0)],
    "two classes": [random_pixels(4, classes=2, void=0)],
    "one pixel": [random_pixels(5, (1, 1), void=0)],
}


@pytest.mark.parametrize("bins", [1, 15, 16, 100])
@pytest.mark.parametrize("case", CASES)
def test_metrics_equal_independent_ones(case, bins):
    counts, (truth, prediction, probabilities) = (
        counted(*CASES[case], bins=bins),
        valid_pixels(*CASES[case]),
    )
    probabilities = probabilities.astype(np.float64)
    classes = probabilities.shape[-1]
    confidence = np.take_along_axis(probabilities, prediction[:, None], axis=1)[:, 0]
    correct = truth == prediction
    expected = brute_force_error(correct, confidence, bins)
    assert counts.expected_calibration_error == pytest.approx(expected, abs=1e-12)
    per_class = [
        brute_force_error(truth == index, probabilities[:, index], bins) for index in range(classes)
    ]
    np.testing.assert_allclose(counts.per_class_calibration_error, per_class, atol=1e-12)
    assert counts.classwise_calibration_error == pytest.approx(np.mean(per_class), abs=1e-12)
    # scikit-learn requires an exact sum of 1, which float32 rounds.
    exact = probabilities / probabilities.sum(axis=1, keepdims=True)
    brier = sklearn.metrics.brier_score_loss(np.eye(classes)[truth], exact, scale_by_half=False)
    assert counts.brier_score == pytest.approx(brier, abs=1e-6)
    clipped = np.maximum(probabilities, 1e-30)
    loss = -np.log(clipped[np.arange(len(truth)), truth]).mean()
    assert counts.negative_log_likelihood == pytest.approx(loss, rel=1e-12)


def test_likelihood_and_diagram_equal_those_of_scikit_learn():
    truth, prediction, probabilities = valid_pixels(random_pixels(6))
    counts = counted(random_pixels(6))
    normalized = probabilities.astype(np.float64)
    normalized /= normalized.sum(axis=1, keepdims=True)
    loss = sklearn.metrics.log_loss(truth, normalized, labels=range(5))
    assert counts.negative_log_likelihood == pytest.approx(loss, abs=1e-6)
    confidence = probabilities.max(axis=1).astype(np.float64)
    accuracies, confidences = sklearn.calibration.calibration_curve(
        truth == prediction, confidence, n_bins=15
    )
    rows = [row for row in counts.reliability if row["pixels"]]
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracies, atol=1e-12)
    np.testing.assert_allclose([row["confidence"] for row in rows], confidences, atol=1e-12)
    assert sum(row["pixels"] for row in counts.reliability) == len(truth)


def test_images_add_up_in_any_division():
    truth, prediction, probabilities = random_pixels(7)
    whole = counted((truth, prediction, probabilities))
    parts = [
        (truth[rows], prediction[rows], probabilities[rows]) for rows in np.split(np.arange(40), 8)
    ]
    divided = counted(*parts)
    np.testing.assert_array_equal(whole.pixels, divided.pixels)
    np.testing.assert_allclose(whole.probability, divided.probability, rtol=1e-13)
    assert whole.brier_score == pytest.approx(divided.brier_score, rel=1e-13)


def test_certain_probabilities_are_in_the_last_bin():
    truth = np.array([[0, 0, 1, 255]])
    prediction = np.array([[0, 1, 1, 0]])
    counts = counted((truth, prediction, np.eye(3, dtype=np.float32)[prediction]))
    assert counts.pixels[-1].tolist() == [0] * 14 + [3]
    assert counts.expected_calibration_error == pytest.approx(1 / 3)
    assert counts.brier_score == pytest.approx(2 / 3)
    assert counts.negative_log_likelihood == pytest.approx(-np.log(1e-30) / 3)
    right = counted((truth[:, ::2], prediction[:, ::2], np.eye(3)[prediction[:, ::2]]))
    assert right.expected_calibration_error == right.brier_score == 0
    assert right.negative_log_likelihood == 0


def test_one_class_is_always_calibrated():
    zeros = np.zeros((2, 2), int)
    counts = counted((zeros, zeros, np.ones((2, 2, 1), np.float32)))
    assert counts.expected_calibration_error == counts.classwise_calibration_error == 0


def test_void_alone_is_undefined():
    counts = counted((np.full((2, 2), 255), np.zeros((2, 2), int), np.full((2, 2, 3), 1 / 3)))
    assert np.isnan(counts.expected_calibration_error)
    assert np.isnan([counts.brier_score, counts.negative_log_likelihood]).all()
    assert all(row["accuracy"] is None for row in counts.reliability)


@pytest.mark.parametrize("bins", [0, -3, 1001, 2.5, True, "15"])
def test_illegal_numbers_of_bins_are_refused(bins):
    with pytest.raises(DeepLabError, match="calibration_bins"):
        CalibrationCounts.empty(3, bins)
