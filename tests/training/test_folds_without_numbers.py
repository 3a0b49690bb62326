import json
import math

import pytest
from stand_ins import random_dataset

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter
from deeplab_jax.training import cross_validation
from deeplab_jax.training.cross_validation import CrossValidation

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "mean", "deviation"),
    [((0.2, 0.4), 0.3, 0.02**0.5), ((NAN, 0.2, 0.4), 0.3, 0.02**0.5)],
)
def test_folds_without_a_number_are_left_out(tmp_path, scores, mean, deviation):
    found = CrossValidation(tmp_path, scores)
    assert found.mean == pytest.approx(mean)
    assert found.standard_deviation == pytest.approx(deviation)


def test_nothing_but_folds_without_a_number(tmp_path):
    found = CrossValidation(tmp_path, (NAN, NAN))
    assert math.isnan(found.mean)
    assert math.isnan(found.standard_deviation)


def test_the_file_is_json_and_finished_folds_stay_finished(tmp_path):
    cross_validation._write(tmp_path, 3, (NAN, 0.2, 0.4))

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / cross_validation.RESULTS_FILE).read_text()
    written = json.loads(text, parse_constant=refuse)
    assert written["mean_ious"] == [None, 0.2, 0.4]
    assert written["mean"] == pytest.approx(0.3)
    done = cross_validation._finished(tmp_path, 3)
    assert done[1:] == [0.2, 0.4]
    assert math.isnan(done[0])


@pytest.mark.parametrize("text", ["", "[1]", '{"folds": 3}'])
def test_damaged_results_are_named(tmp_path, text):
    path = tmp_path / cross_validation.RESULTS_FILE
    path.write_text(text)
    with pytest.raises(DeepLabError, match=f"{path.name} cannot be read: .*; delete it"):
        cross_validation._finished(tmp_path, 3)


def test_a_size_below_that_of_an_image_of_any_fold_is_refused_before_the_first_fold(tmp_path):
    for large in range(3):
        dataset = random_dataset([(40, 20) if index == large else (20, 20) for index in range(3)])
        config = configs.default()
        config.evaluation.size = (33, 33)
        with pytest.raises(DeepLabError, match=r"up to 40x20 .*larger than the evaluation size"):
            cross_validation.cross_validate(config, tmp_path, 3, dataset, reporter=Reporter())
        assert not list(tmp_path.iterdir())


def test_illegal_fields_are_refused_before_the_data_are_divided(tmp_path):
    config = configs.default()
    config.seed = -1
    with pytest.raises(DeepLabError, match="seed=-1 must be a whole number"):
        cross_validation.cross_validate(config, tmp_path, 2, random_dataset([(20, 20)] * 3))
