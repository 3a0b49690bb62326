"""The grid of CRFs: what a loop over dense_crf gives; files that --crf takes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables
from stand_ins import Convolution, random_dataset

from deeplab_jax.crf import CRFParameters, dense_crf, dense_crf_of_weights
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import CRFGrid, crf_search_table, evaluate, search_crf
from deeplab_jax.evaluation.crf_search import likely_classes
from deeplab_jax.inference import InferenceOptions, Predictor, read_crf_parameters
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.reporter import Reporter

GRID = CRFGrid((1.0, 4.0), (5.0,), (10.0, 40.0), CRFParameters(1, 1, 1, 3.0, 2.0, iterations=2))


@pytest.fixture(scope="module")
def dataset():
    return random_dataset([(20, 31), (33, 33), (40, 7)], void=0.1)


@pytest.fixture(scope="module")
def predictor(dataset):
    model = Convolution()
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 9, 9, 3), jnp.uint8))
    names, palette = dataset.descriptor.class_names, dataset.descriptor.palette
    return Predictor(model, variables, names, palette, (49, 49), source="net")


def mean_iou(predictor, dataset, point):
    total = ConfusionMatrix.empty(4)
    for index in range(len(dataset)):
        example = dataset[index]
        logits = jnp.asarray(predictor.logits(example["image"]))[None]
        class_map = dense_crf(logits, example["image"][None], point)[0].argmax(axis=-1)
        total = total.merge(ConfusionMatrix.from_labels(example["label"], class_map, 4))
    return total.mean_iou


def test_the_grid_is_that_of_deeplab_v2():
    points = CRFGrid().points()
    assert len(set(points)) == len(points) == 4 * 8 * 4
    assert {point.bilateral_position_std for point in points} == set(range(30, 101, 10))
    assert {point.smoothness_position_std for point in points} == {3}
    assert {point.iterations for point in points} == {10}


def test_each_point_is_what_its_crf_gives(dataset, predictor, tmp_path):
    found = search_crf(predictor, dataset, GRID, output=tmp_path / "crf.json", reporter=Reporter())
    assert len(found["table"]) == 4
    for row in found["table"]:
        fields = {key: value for key, value in row.items() if key != "mean_iou"}
        assert row["mean_iou"] == mean_iou(predictor, dataset, CRFParameters(**fields))
    without = dataclasses.replace(GRID.fixed, iterations=0)
    assert found["mean_iou_without_crf"] == mean_iou(predictor, dataset, without)
    ious = [row["mean_iou"] for row in found["table"]]
    assert found["mean_iou"] == ious[0] == max(ious)
    assert found["num_images"] == 3
    assert found["settings"]["model"] == "net"
    assert json.loads((tmp_path / "crf.json").read_text()) == found
    options = InferenceOptions(crf=read_crf_parameters(tmp_path / "crf.json"))
    assert evaluate(predictor, dataset, options=options)["mean_iou"] == found["mean_iou"]
    table = crf_search_table(found, num_rows=2).splitlines()
    assert f"{100 * found['mean_iou']:.2f}" in table[3]
    assert len(table) == 5


def test_results_with_numbers_of_numpy_and_jax_are_written(dataset, predictor, tmp_path):
    grid = CRFGrid(np.arange(3, 5), np.array([5]), np.array([10], np.float32), GRID.fixed)
    output = tmp_path / "crf.json"
    found = search_crf(predictor, dataset, grid, limit=1, output=output, reporter=Reporter())
    assert json.loads(output.read_text()) == found
    assert read_crf_parameters(output).bilateral_position_std == 5
    learned = dataclasses.replace(
        GRID.fixed,
        bilateral_weight=jnp.float32(2),
        bilateral_position_std=np.int64(5),
        iterations=np.int64(2),
    )
    options = InferenceOptions(crf=learned)
    evaluate(predictor, dataset, options=options, limit=1, output=tmp_path, reporter=Reporter())
    settings = json.loads((tmp_path / "metrics.json").read_text())["settings"]
    assert settings["crf"] == options.describe()["crf"]
    assert settings["crf"]["bilateral_weight"] == 2


def test_an_output_that_cannot_be_written_is_refused_before_the_search(
    dataset, predictor, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("deeplab_jax.evaluation.crf_search._count", None)
    for output, message in (
        (tmp_path, "is a directory; give the path of a file in it"),
        (tmp_path / "file" / "crf.json", r"file cannot be written \(File exists\)"),
    ):
        with pytest.raises(DeepLabError, match=message):
            search_crf(predictor, dataset, GRID, output=output, reporter=Reporter())


def test_batches_limits_and_tiles(dataset, predictor):
    results = [
        search_crf(predictor, dataset, GRID, batch_size=size, limit=2)["table"] for size in (1, 3)
    ]
    assert results[0] == results[1]
    options = InferenceOptions(tile=(49, 49), overlap=0.1, crf="deeplab")
    found = search_crf(predictor, dataset, GRID, options=options, limit=1)
    assert found["num_images"] == 1
    assert found["settings"]["tile"] == [49, 49]


def test_weights_share_a_lattice_and_change_nothing(dataset):
    logits = np.random.default_rng(0).normal(size=(9, 13, 5)).astype(np.float32)
    image = np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8)
    parameters = CRFParameters(1.0, 5.0, 20.0, iterations=2, filtering="lattice")
    for weight, found in zip(
        (0.5, 3.0), dense_crf_of_weights(logits, image, parameters, (0.5, 3.0)), strict=True
    ):
        weighted = dataclasses.replace(parameters, bilateral_weight=weight)
        expected = dense_crf(logits[None], image[None], weighted)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_absent_classes_are_omitted():
    logits = np.zeros((2, 3, 4), np.float32)
    logits[..., 1], logits[..., 2] = -20, 5
    logits[1, 2, 1] = 0
    np.testing.assert_array_equal(likely_classes(logits), [0, 1, 2, 3])
    logits[1, 2, 1] = -20
    np.testing.assert_array_equal(likely_classes(logits), [0, 2, 3])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (CRFGrid((), (5.0,), (3.0,)), "at least one value"),
        (CRFGrid((3.0,), (0.0,), (3.0,)), "bilateral_position_std=0.0 must be > 0"),
        (CRFGrid(np.arange(-1, 1), (5.0,), (3.0,)), "bilateral_weight=.* must be ≥ 0"),
    ],
)
def test_grids_without_a_legal_point_are_refused(dataset, predictor, grid, message):
    with pytest.raises(DeepLabError, match=message):
        search_crf(predictor, dataset, grid)


def test_models_of_other_bands_are_refused_before_the_search(dataset, predictor):
    four = dataclasses.replace(predictor.model.architecture, in_channels=4, image_dtype="uint16")
    other = Predictor(Convolution(four), {}, predictor.class_names, predictor.palette)
    message = "CRF requires 8-bit RGB.*takes 4 bands of uint16; use the model without a CRF"
    with pytest.raises(DeepLabError, match=message):
        search_crf(other, dataset, GRID, reporter=Reporter())


GOOD = '{"bilateral_weight": 4, "bilateral_position_std": 49, "bilateral_color_std": 5%s}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid JSON"),
        ("[1, 2]", "expected an object"),
        ('{"parameters": 3}', "expected an object"),
        ('{"bilateral_weight": 4}', "bilateral_position_std, bilateral_color_std are missing"),
        (GOOD % ', "bilateral_wieght": 1', "did you mean 'bilateral_weight'"),
        (GOOD % ', "iterations": 2.5', "iterations=2.5"),
        (GOOD % ', "smoothness_weight": "3"', "smoothness_weight must be a number, got '3'"),
        (GOOD % ', "smoothness_weight": NaN', "smoothness_weight=nan"),
        (GOOD % ', "normalization": 3', "normalization must be a string, got 3"),
        (GOOD % ', "normalization": "befor"', "normalization"),
    ],
)
def test_files_without_crf_parameters_are_refused(tmp_path, text, message):
    path = tmp_path / "crf.json"
    path.write_text(text)
    with pytest.raises(DeepLabError, match=message):
        read_crf_parameters(path)
    with pytest.raises(DeepLabError, match="cannot read the CRF parameters: no such file"):
        read_crf_parameters(tmp_path / "other.json")
    with pytest.raises(DeepLabError, match="cannot read the CRF parameters: it is a directory"):
        read_crf_parameters(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_fields_alone_are_enough(tmp_path, encoding):
    path = tmp_path / "crf.json"
    path.write_text(GOOD % ', "iterations": 5', encoding)
    assert read_crf_parameters(path) == CRFParameters(4, 49, 5, iterations=5)
