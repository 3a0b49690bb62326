"""Evaluation on another list of classes, against pixels that are counted one by one."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import sklearn.metrics
from stand_ins import RedReader, random_dataset

from deeplab_jax.data import ArrayDataset
from deeplab_jax.data.descriptors import describe
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import compare_strategies, evaluate, strategy_steps
from deeplab_jax.evaluation.class_list import make_class_list, read_class_map
from deeplab_jax.inference import ImageClassification, InferenceOptions, Predictor
from deeplab_jax.metrics import BoundaryMatch

MODEL = ("sky", "tree", "road", "car")
DATASET = ("ground", "road", "vehicle")
CLASS_MAP = {"car": "vehicle", "road": "ground", "vehicle": "vehicle"}
# The scored class of each class of the dataset and of the model, written out.
OF_TRUTH = {"ground": "ground", "road": "ground", "vehicle": "vehicle"}
OF_PREDICTION = {"sky": None, "tree": None, "road": "ground", "car": "vehicle"}


@pytest.fixture(scope="module")
def predictor():
    return Predictor(RedReader(), {}, MODEL, random_dataset([(4, 4)]).descriptor.palette)


@pytest.fixture(scope="module")
def dataset():
    random = np.random.default_rng(3)
    sizes = [(20, 31), (17, 9), (33, 33)]
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    labels = [random.choice([0, 1, 2, 255], size).astype(np.uint8) for size in sizes]
    return ArrayDataset(images, labels, DATASET)


def examples(dataset):
    return [dataset[index] for index in range(len(dataset))]


def pairs(dataset, predictor, of_truth, of_prediction):
    """Yields (scored truth, scored prediction or None) of every pixel whose truth is scored."""
    for example in examples(dataset):
        predicted = predictor(example["image"])
        for truth, prediction in zip(example["label"].ravel(), predicted.ravel(), strict=True):
            scored = None if truth == 255 else of_truth.get(dataset.descriptor.class_names[truth])
            if scored is not None:
                yield scored, of_prediction.get(MODEL[prediction])


def ious(counts, names):
    """Returns TP / (TP + FP + FN) of each class."""
    found = {}
    for name in names:
        true_positive = counts[name, name]
        of_truth = sum(count for (truth, _), count in counts.items() if truth == name)
        predicted = sum(count for (_, prediction), count in counts.items() if prediction == name)
        found[name] = true_positive / (of_truth + predicted - true_positive)
    return found


def test_a_class_map_agrees_with_counting_every_pixel(dataset, predictor, tmp_path):
    metrics = evaluate(predictor, dataset, class_map=CLASS_MAP, output=tmp_path, trimap_widths=[2])
    counts = Counter(pairs(dataset, predictor, OF_TRUTH, OF_PREDICTION))
    expected = ious(counts, ["ground", "vehicle"])
    assert metrics["per_class_iou"] == pytest.approx(expected)
    assert metrics["mean_iou"] == pytest.approx(np.mean(list(expected.values())))
    columns = ("ground", "vehicle", None)
    assert metrics["confusion_matrix"] == [
        [counts[truth, prediction] for prediction in columns] for truth in columns[:2]
    ]
    correct = counts["ground", "ground"] + counts["vehicle", "vehicle"]
    assert metrics["pixel_accuracy"] == pytest.approx(correct / counts.total())
    assert metrics["settings"]["class_map"] == CLASS_MAP
    assert metrics["settings"]["classes"] == ["ground", "vehicle"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert (tmp_path / "confusion_matrix.png").stat().st_size
    assert (tmp_path / "contact_sheet.png").stat().st_size


def test_average_precision_ranks_the_summed_probabilities(dataset, predictor):
    class_map = {"car": "vehicle", "tree": "vehicle", "road": "road"}
    metrics = evaluate(predictor, dataset, class_map=class_map)
    truth, scores = [], []
    for example in examples(dataset):
        probabilities = predictor.predict(example["image"]).probabilities
        scored = np.isin(example["label"], [1, 2])
        truth.append(example["label"][scored] == 2)
        scores.append(np.float32(probabilities[..., 1] + probabilities[..., 3])[scored])
    rank = np.floor(1000 * np.concatenate(scores))
    expected = sklearn.metrics.average_precision_score(np.concatenate(truth), rank)
    found = metrics["per_class_average_precision"]["vehicle"]
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("options", [None, InferenceOptions(tile=(17, 17), overlap=0)])
def test_scored_classes_leave_the_others_void(predictor, options):
    dataset = random_dataset([(20, 31), (40, 7)])
    metrics = evaluate(predictor, dataset, classes=["car", "tree"], options=options)
    identity = {name: name for name in ("tree", "car")}
    alone = predictor.with_options(options) if options else predictor
    counts = Counter(pairs(dataset, alone, identity, identity))
    assert metrics["per_class_iou"] == pytest.approx(ious(counts, ["tree", "car"]))
    assert list(metrics["per_class_iou"]) == ["tree", "car"]
    assert sum(map(sum, metrics["confusion_matrix"])) == counts.total()
    boundary = BoundaryMatch.empty(3)
    for example in examples(dataset):
        truth = np.array([255, 0, 255, 1])[np.minimum(example["label"], 3)]
        truth = np.where(example["label"] == 255, 255, truth).astype(np.uint8)
        prediction = np.array([2, 0, 2, 1], np.uint8)[alone(example["image"])]
        boundary = boundary.merge(BoundaryMatch.from_labels(truth, prediction, 3))
    expected = BoundaryMatch(boundary.counts[:2]).f_score
    assert metrics["boundary_f_score"] == pytest.approx(expected)


def test_all_classes_in_another_order_change_no_number(predictor):
    dataset = random_dataset([(20, 31)])
    plain = evaluate(predictor, dataset)
    listed = evaluate(predictor, dataset, classes=MODEL[::-1])
    assert listed["per_class_iou"] == plain["per_class_iou"]
    assert listed["boundary_f_score"] == plain["boundary_f_score"]
    assert [row[:4] for row in listed["confusion_matrix"]] == plain["confusion_matrix"]
    for name, value in plain["per_class_average_precision"].items():
        assert listed["per_class_average_precision"][name] == pytest.approx(value, abs=1e-3)


def test_a_class_of_the_map_may_be_the_only_scored_one(dataset, predictor):
    both = evaluate(predictor, dataset, class_map=CLASS_MAP)
    only = evaluate(predictor, dataset, class_map=CLASS_MAP, classes=["vehicle"])
    counts = Counter(pairs(dataset, predictor, {"vehicle": "vehicle"}, {"car": "vehicle"}))
    assert only["per_class_iou"] == pytest.approx(ious(counts, ["vehicle"]))
    assert only["mean_iou"] > both["per_class_iou"]["vehicle"]
    assert not math.isnan(only["mean_iou"])


def test_strategies_are_compared_on_the_same_classes(dataset, predictor):
    steps = strategy_steps(InferenceOptions(flip=True))
    rows = compare_strategies(predictor, dataset, steps, class_map=CLASS_MAP)
    expected = evaluate(predictor, dataset, class_map=CLASS_MAP)
    assert rows[0]["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert rows[0]["boundary_f_score"] == pytest.approx(expected["boundary_f_score"])
    assert rows[0]["settings"]["classes"] == ["ground", "vehicle"]


def test_classifiers_of_whole_images_are_refused_as_such(dataset):
    whole = ImageClassification.__new__(ImageClassification)
    whole.source, whole.class_names = "imagenet", ("cat", "dog")
    with pytest.raises(DeepLabError, match="imagenet classifies whole images"):
        evaluate(whole, dataset, classes=["ground"])


def test_255_scored_classes_leave_room_for_other_predictions():
    names = [f"class {index}" for index in range(256)]
    found = make_class_list(names, describe("many", names), classes=names[:255])
    assert found.prediction(np.array([[254, 255]])).tolist() == [[254, 255]]
    assert found.truth(np.array([[254, 255, 65535]])).tolist() == [[254, 65535, 65535]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.txt", "car: vehicle\n\nroad : ground\n"),
        ("map.json", '{"car": "vehicle", "road": "ground"}'),
    ],
)
def test_a_class_map_is_read_from_lines_or_json(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_map(tmp_path / name) == {"car": "vehicle", "road": "ground"}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("map.txt", "car vehicle\n", r"map\.txt, line 1: expected `from: to`, got 'car vehicle'"),
        ("map.txt", "car: a\ncar: b\n", r"map\.txt: 'car' occurs twice"),
        ("map.txt", "car: void\nroad: void\n", r"map\.txt: no class is scored"),
        ("map.txt", "\n", r"map\.txt: the file is empty"),
        ("map.json", '["car"]', r"map\.json: a class map in JSON must"),
        ("map.json", '{"car": 1}', r"map\.json: a class map in JSON must"),
        ("map.json", "{", r"map\.json: invalid JSON"),
        ("map.json", '{"car": "a", "car": "b"}', r"map\.json: .*'car'"),
        ("map.txt", "cat: vehicle\n", r"map\.txt: unknown class 'cat'; did you mean 'car'\?"),
        ("map.txt", "car: vehicel\n", r"'vehicel' cannot be scored: the dataset .*'vehicle'\?"),
        ("map.txt", "ground: ground\n", r"class 'ground' cannot be scored: the model has no such"),
        (None, None, "cannot read the class map: no such file"),
    ],
)
def test_mistakes_in_a_class_map_are_named(dataset, predictor, tmp_path, name, text, complaint):
    path = tmp_path / (name or "none.txt")
    if name:
        path.write_text(text)
    with pytest.raises(DeepLabError, match=complaint):
        evaluate(predictor, dataset, class_map=path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("classes", "class_map", "complaint"),
    [
        (["roof"], None, r"unknown class 'roof'; did you mean 'road'\?"),
        (["tree"], None, "class 'tree' cannot be scored: the dataset has no such class"),
        (["vehicle"], None, "class 'vehicle' cannot be scored: the model has no such class"),
        (["road"], CLASS_MAP, "unknown class 'road'.* legal: ground, vehicle"),
        (["ground"], {"road": "void"}, "unknown class 'ground'"),
        (None, {}, "class_map: no class is scored"),
        (["roof"], {}, r"unknown class 'roof'; did you mean 'road'\?"),
    ],
)
def test_scored_classes_must_exist_on_both_sides(dataset, predictor, classes, class_map, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        evaluate(predictor, dataset, classes=classes, class_map=class_map)
