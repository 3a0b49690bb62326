import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from reporters import RecordingReporter
from stand_ins import RedReader, random_dataset, red_predictor

from deeplab_jax.crf import CRFParameters
from deeplab_jax.data import ArrayDataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import (
    Evaluator,
    evaluate,
    fit_temperature,
    search_crf,
    settings_lines,
    table,
)
from deeplab_jax.evaluation.results import only_labels
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import forward_pass
from deeplab_jax.metrics import BoundaryMatch
from deeplab_jax.models import Architecture

SIZES = [(20, 31), (33, 33), (40, 7), (1, 50), (25, 25)]


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(SIZES)


def flat(dataset, limit=None):
    """Returns truth and what `RedReader` says of every pixel that is not void."""
    examples = [dataset[index] for index in range(limit or len(dataset))]
    truth = np.concatenate([example["label"].ravel() for example in examples])
    prediction = np.concatenate([example["image"][..., 0].ravel() % 4 for example in examples])
    return truth[truth != 255], prediction[truth != 255]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 8])
def test_every_image_counts_once_whatever_the_batch(dataset, batch_size):
    evaluator = Evaluator(RedReader(), dataset, batch_size=batch_size)
    expected = sklearn.metrics.confusion_matrix(*flat(dataset))
    compiled = forward_pass(RedReader(), (1.0,), False, only_labels, None)
    before = compiled._cache_size()
    for _ in range(2):
        np.testing.assert_array_equal(evaluator.run({}).counts, expected)
    assert evaluator.size is None
    assert compiled._cache_size() - before == len(set(evaluator._inference.sizes)) <= 3


@pytest.mark.parametrize("limit", [1, 3, 99])
def test_limit_takes_the_first_images(dataset, limit):
    counts = Evaluator(RedReader(), dataset, batch_size=2, limit=limit).run({}).counts
    expected = sklearn.metrics.confusion_matrix(*flat(dataset, min(limit, 5)), labels=range(4))
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_full_evaluation_agrees_with_independent_numbers(dataset, batch_size, tmp_path):
    metrics = evaluate(red_predictor(dataset), dataset, batch_size=batch_size, output=tmp_path)
    truth, prediction = flat(dataset)
    mean_iou = sklearn.metrics.jaccard_score(truth, prediction, average="macro")
    assert metrics["mean_iou"] == pytest.approx(mean_iou)
    boundary = BoundaryMatch.empty(4)
    for index in range(len(dataset)):
        label = dataset[index]["label"]
        red = dataset[index]["image"][..., 0] % 4
        boundary = boundary.merge(BoundaryMatch.from_labels(label, red, 4))
    assert metrics["boundary_f_score"] == boundary.f_score
    for index, name in enumerate(dataset.descriptor.class_names):
        assert metrics["per_class_average_precision"][name] == pytest.approx(
            average_precision(dataset, index)
        )
    assert metrics["num_images"] == 5
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"metrics.json", "confusion_matrix.png", "contact_sheet.png"}


def test_the_contact_sheet_keeps_no_batch_in_memory(dataset, tmp_path, monkeypatch):
    kept, module = [], importlib.import_module("deeplab_jax.evaluation.evaluate")
    monkeypatch.setattr(module, "write_report", lambda *arguments: kept.extend(arguments[2]))
    settings = {"options": InferenceOptions(flip=True), "uncertainty": ("confidence", "scales")}
    evaluate(red_predictor(dataset), dataset, batch_size=2, output=tmp_path, **settings)
    arrays = [leaf for leaf in jax.tree.leaves(kept) if isinstance(leaf, np.ndarray)]
    # Image, truth, prediction and two uncertainties of five images, none of them a view.
    assert sorted(array.shape[:2] for array in arrays) == sorted(SIZES * 5)
    assert all(array.base is None for array in arrays)


def average_precision(dataset, index):
    truth, scores = [], []
    for example in (dataset[position] for position in range(len(dataset))):
        odds = np.exp((example["image"][..., 1] + np.float32(1)) / 64)
        own = example["image"][..., 0] % 4 == index
        scores.append(
            np.where(own, odds, 1)[example["label"] != 255] / (odds + 3)[example["label"] != 255]
        )
        truth.append(example["label"][example["label"] != 255] == index)
    rank = np.floor(1000 * np.concatenate(scores))
    return sklearn.metrics.average_precision_score(np.concatenate(truth), rank)


def test_metrics_have_the_keys_of_the_interface(dataset):
    metrics = evaluate(red_predictor(dataset, inference_size=(60, 60)), dataset, limit=2)
    assert list(metrics) == [
        "mean_iou",
        "pixel_accuracy",
        "mean_accuracy",
        "frequency_weighted_iou",
        "mean_dice",
        "boundary_f_score",
        "per_class_iou",
        "per_class_average_precision",
        "trimap_mean_iou",
        "confusion_matrix",
        "calibration",
        "uncertainty",
        "num_images",
        "settings",
    ]
    assert metrics["settings"]["size"] == [65, 65]
    assert metrics["settings"]["output_stride"] == 16


def test_an_absent_class_is_null(tmp_path):
    image = np.zeros((1, 8, 8, 3), np.uint8)
    dataset = ArrayDataset(image, np.zeros((1, 8, 8), np.uint8), ["a", "b", "c", "d"])
    metrics = evaluate(red_predictor(dataset), dataset, output=tmp_path)
    assert metrics["per_class_iou"] == {"a": 1, "b": None, "c": None, "d": None}
    assert metrics["per_class_average_precision"]["b"] is None
    assert metrics["mean_iou"] == 1
    assert metrics["boundary_f_score"] is None
    assert "null" in (tmp_path / "metrics.json").read_text()
    assert "–" in table(metrics)
    assert settings_lines({"overlap": 0, "flip": False, "limit": None}) == ["overlap: 0"]


def test_a_size_below_that_of_an_image_is_refused_before_anything_runs(dataset):
    message = "up to 40x50 .*larger than the evaluation size 33x33; .*at least 40x50"
    with pytest.raises(DeepLabError, match=message):
        Evaluator(RedReader(), dataset, size=(32, 32))
    # The first two images fit.
    assert Evaluator(RedReader(), dataset, size=(32, 32), limit=2).size == (33, 33)


def test_mistakes_are_named(dataset):
    two_classes = RedReader(Architecture("mobilenet_v2", num_classes=2))
    with pytest.raises(DeepLabError, match="has 2 classes, but the dataset arrays has 4"):
        Evaluator(two_classes, dataset)
    with pytest.raises(DeepLabError, match="nothing to evaluate"):
        Evaluator(RedReader(), dataset, limit=0)
    void = random_dataset([(5, 5)], void=1)
    with pytest.raises(DeepLabError, match="every pixel is void"):
        evaluate(red_predictor(dataset), ArrayDataset(void._images, void._masks, "abcd"))


def test_settings_may_be_integers_of_numpy(dataset, tmp_path):
    settings = {"size": dataset.image_sizes().max(axis=0), "limit": np.int64(2)}
    settings |= {"batch_size": np.int64(2), "output": tmp_path}
    metrics = evaluate(red_predictor(dataset), dataset, **settings)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["settings"]["size"] == [49, 65]
    assert metrics["num_images"] == metrics["settings"]["limit"] == 2


class NotANumberAt(RedReader):
    """Has NaN outputs at one pixel of each image."""

    def __call__(self, image, train=False):
        return super().__call__(image).at[:, 3, 4, 1].set(jnp.nan)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"calibration_bins": 5},
        {"uncertainty": ("confidence",)},
        {"classes": ["sky", "car"]},
        {"options": InferenceOptions(crf=CRFParameters(3.0, 5.0, 5.0, iterations=1))},
        {"options": InferenceOptions(flip=True)},
        {"options": InferenceOptions(tile=(17, 17), overlap=0)},
    ],
)
def test_outputs_that_are_not_finite_are_an_error(settings, tmp_path):
    dataset = random_dataset([(20, 31)])
    names, palette = dataset.descriptor.class_names, dataset.descriptor.palette
    predictor = Predictor(NotANumberAt(), {}, names, palette)
    with pytest.raises(DeepLabError, match=r"arrays/.*, image 0: the outputs .* are not finite"):
        evaluate(predictor, dataset, output=tmp_path / "out", **settings)
    assert not (tmp_path / "out/metrics.json").exists()
    for measure in (fit_temperature, search_crf):
        with pytest.raises(DeepLabError, match="are not finite"):
            measure(predictor, dataset)


def test_other_class_names_are_warned_of(dataset):
    predictor = Predictor(RedReader(), {}, ["sky", "wood", "road", "car"], [(0, 0, 0)] * 4)
    warnings = RecordingReporter()
    evaluate(predictor, dataset, limit=1, reporter=warnings)
    assert warnings.warnings == [
        "1 class differs in name between the model and the dataset arrays; for example, "
        "the class 'wood' is 'tree' in the dataset"
    ]
