"""Numbers before and after a change of a model, and how they are told."""

import json

import jax
import numpy as np
import pytest
from small_models import SIZE, stored

from deeplab_jax import config as configs
from deeplab_jax.compression.effects import (
    costs,
    latencies,
    report_table,
    tflite_call,
    write_comparison,
)
from deeplab_jax.compression.fine_tuning import recipe_of, with_network
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import Predictor
from deeplab_jax.models import create_model

REPORT = {
    "models": {
        "before": {"mean_iou": 0.5, "macs": 1_000_000, "latency_ms": 12.34},
        "int8": {"mean_iou": 0.49, "macs": 1_000_000, "latency_ms": 6.17},
        "file.tflite": {"latency_ms": 3.0},
    },
    "ratios": {"int8": {"mean_iou": 0.98, "macs": 1.0, "latency_ms": 0.5}},
}


def test_report_rows_are_measures_and_columns_models():
    lines = report_table(REPORT).splitlines()
    assert lines[0].split() == ["before", "int8", "file.tflite", "int8", "/", "before"]
    rows = {line[:15].strip(): line[15:].split() for line in lines[1:]}
    assert rows["mean IoU"] == ["0.5000", "0.4900", "–", "0.980"]
    assert rows["multiply-adds"] == ["1,000,000", "1,000,000", "–", "1.000"]
    assert rows["latency in ms"] == ["12.3", "6.2", "3.0", "0.500"]
    assert rows["bytes on disk"] == ["–"] * 4


def test_the_report_is_written_beside_the_model(tmp_path):
    write_comparison(tmp_path, REPORT)
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT


def test_calls_are_timed_in_turns_after_a_first_one():
    order = []
    found = latencies({name: lambda name=name: order.append(name) for name in "ab"}, repeats=3)
    assert order == list("ab" * 4)
    assert set(found) == {"a", "b"}
    assert all(milliseconds >= 0 for milliseconds in found.values())


def test_costs_count_what_is_there():
    model = stored("mobilenet_v2")
    sparse = jax.tree.map(np.zeros_like, model.variables)
    names = model.description.class_names
    palette = model.description.palette
    full, less = (
        costs(Predictor(model.model, variables, names, palette), SIZE)
        for variables in (model.variables, sparse)
    )
    assert full["array_bytes"] == less["array_bytes"] > 4 * full["parameters"]
    assert full["nonzero_kernel_share"] == 1
    assert less["nonzero_kernel_share"] == 0
    # Zeros compress.
    assert less["file_bytes"] < full["file_bytes"] / 2


def test_a_non_tflite_file_is_refused(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"no flat buffer")
    with pytest.raises(DeepLabError, match=r"x\.tflite cannot be run"):
        tflite_call(tmp_path / "x.tflite")


def test_fine_tuning_uses_the_network_of_the_model(tmp_path):
    description = stored("mobilenet_v2").description
    config = configs.load("camvid:cpu")
    changed = with_network(config, description)
    fields = {name: value for name, value in changed.model.to_dict().items() if value is not None}
    made = create_model(fields.pop("architecture"), num_classes=3, **fields)
    assert made.architecture == stored("mobilenet_v2").model.architecture
    assert changed.optimizer.name == config.optimizer.name
    assert config.model.aspp_channels == 128
    (tmp_path / "config.json").write_text(configs.to_json(config))
    assert configs.differences(recipe_of(tmp_path), config) == []
    assert configs.differences(recipe_of(tmp_path / "none"), configs.default()) == []


@pytest.mark.parametrize("text", ['{"seed": 3,}', "[]", '{"sed": 3}', "null"])
def test_a_damaged_config_of_a_workdir_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    message = r"config\.json cannot be read: .*; restore the file, or give --config=FILE$"
    with pytest.raises(DeepLabError, match=message):
        recipe_of(tmp_path)
