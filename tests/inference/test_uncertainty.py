import numpy as np
import pytest
import scipy.special
import scipy.stats
from random_variables import random_variables
from stand_ins import random_dataset

from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import evaluate
from deeplab_jax.inference import InferenceOptions, Predictor, uncertainty_functions
from deeplab_jax.inference.uncertainty import of_probabilities
from deeplab_jax.models import create_model

NAMES, COLORS = ("sky", "tree", "road", "car"), [(0, 0, 0)] * 4
OPTIONS = InferenceOptions(scales=(0.5, 1.0), flip=True)


def make_predictor(**overrides):
    model = create_model(
        "deeplab_v3",
        num_classes=4,
        backbone="mobilenet_v2",
        depth_multiplier=0.35,
        aspp_channels=16,
        **overrides,
    )
    variables = random_variables(model, np.zeros((1, 33, 33, 3), np.uint8))
    return Predictor(model, variables, NAMES, COLORS)


@pytest.fixture(scope="module")
def predictor():
    return make_predictor(dropout_rate=0.5)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 33, 33, 3), dtype=np.uint8)


def test_uncertainties_of_probabilities_equal_their_definitions():
    random = np.random.default_rng(0)
    probabilities = scipy.special.softmax(4 * random.normal(size=(9, 11, 5)), axis=-1)
    entropy = scipy.stats.entropy(probabilities, axis=-1) / np.log(5)
    found = of_probabilities("entropy", probabilities.astype(np.float32))
    np.testing.assert_allclose(found, entropy, atol=1e-6)
    assert found.dtype == np.float32
    certain = np.eye(5, dtype=np.float32)
    assert of_probabilities("entropy", certain).tolist() == [0] * 5
    assert of_probabilities("confidence", certain).tolist() == [0] * 5
    assert of_probabilities("entropy", np.ones((3, 1), np.float32)).tolist() == [0] * 3
    uniform = np.full((1, 5), 0.2, np.float32)
    assert of_probabilities("entropy", uniform) == pytest.approx(1)
    assert of_probabilities("confidence", uniform) == pytest.approx(0.8)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_the_variance_of_scales_equals_that_of_single_predictions(predictor, images, temperature):
    predictor = predictor.with_temperature(temperature)
    fused = predictor.with_options(OPTIONS)
    found = uncertainty_functions(fused, ["scales"])["scales"](images)
    members = []
    for scale in OPTIONS.scales:
        single = predictor.with_options(InferenceOptions(scales=(scale,)))
        for flip in (False, True):
            shown = images[:, :, ::-1] if flip else images
            maps = np.stack([single.predict(image).probabilities for image in shown])
            members.append(maps[:, :, ::-1] if flip else maps)
    expected = np.var(members, axis=0).sum(axis=-1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.max() > 1e-4


@pytest.mark.slow
def test_dropout_varies_and_does_not_depend_on_the_batch(predictor, images):
    function = uncertainty_functions(predictor, ["dropout"], samples=4)["dropout"]
    both = np.asarray(function(images))
    assert both.shape == (2, 33, 33)
    assert 1e-6 < both.mean() < 1
    np.testing.assert_allclose(both[1:], function(images[1:]), atol=1e-6)


def test_the_temperature_changes_the_variance_over_dropout(predictor, images):
    hot = uncertainty_functions(predictor.with_temperature(1e6), ["dropout"], samples=2)["dropout"]
    # All classes have nearly the same probability, so it hardly depends on the dropout mask.
    assert np.asarray(hot(images)).max() < 1e-8


@pytest.mark.parametrize(
    ("overrides", "options", "names", "message"),
    [
        ({"dropout_rate": 0.0}, InferenceOptions(), ["dropout"], "requires a network with dropout"),
        ({}, InferenceOptions(), ["scales"], "requires several scales or flips"),
        ({}, InferenceOptions(crf="default"), ["dropout"], "cannot be computed with a CRF"),
        ({}, InferenceOptions(), ["entropi"], "did you mean 'entropy'"),
        ({}, InferenceOptions(), ["entropy", "entropy"], "contains one name twice"),
    ],
)
def test_unsupported_uncertainties_are_refused(overrides, options, names, message):
    with pytest.raises(DeepLabError, match=message):
        uncertainty_functions(make_predictor(**overrides).with_options(options), names)


def test_too_few_samples_are_refused(predictor):
    with pytest.raises(DeepLabError, match="dropout_samples=1 must be a whole number"):
        uncertainty_functions(predictor, ["dropout"], samples=1)


@pytest.mark.slow
def test_evaluation_measures_the_detection_of_errors(predictor, tmp_path):
    dataset = random_dataset([(33, 33), (40, 20)])
    names = ("confidence", "entropy", "dropout", "scales")
    metrics = evaluate(
        predictor, dataset, options=OPTIONS, uncertainty=names, dropout_samples=3, output=tmp_path
    )
    assert list(metrics["uncertainty"]) == list(names)
    wrong = 1 - metrics["pixel_accuracy"]
    for found in metrics["uncertainty"].values():
        assert found["error_rate"] == pytest.approx(wrong)
        assert 0 <= found["auroc"] <= 1
    assert metrics["settings"]["dropout_samples"] == 3
    assert (tmp_path / "uncertainty.png").stat().st_size > 0
