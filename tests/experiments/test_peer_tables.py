"""Tables of forward passes and training steps, compared with other codebases."""

import csv
import importlib.util
import re

import pytest

from experiments import measured
from experiments.benchmarks import table
from experiments.benchmarks.baselines import BASELINES
from experiments.benchmarks.table import ROWS, Row, command, main

SMALL = Row("small", "straightforward", "v3/mobilenet_v2", "65x65")
FIGURES = {
    **{"seconds": 0.5, "baseline_seconds": 1.0, "ratio": 0.5, "interval": [0.4, 0.75]},
    **{"peak_bytes": 3_000_000, "baseline_peak_bytes": 4_000_000},
    **{"parameters": 1_250_000, "baseline_parameters": 1_500_000},
    **{"operations": 4e9, "baseline_operations": 6e9, "matrix_flops_per_second": 2e11},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Directory of the written tables; the machine is described as `some machine`."""
    monkeypatch.setattr(measured, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(measured, "processor", lambda packages: "some machine")
    return tmp_path / "measured"


def _cells(path):
    with path.open(newline="") as file:
        return {(row["row"], row["quantity"]): row["value"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_name_networks_of_their_baseline(kind):
    for row in ROWS[kind]:
        baseline = BASELINES[row.baseline]
        assert row.network in baseline.networks
        assert kind == "forward" or baseline.trained


def test_baselines_in_pytorch_are_timed_eagerly_and_compiled(results, tmp_path, monkeypatch):
    row = Row("net", "torchvision", "deeplabv3_resnet50", "65x97")
    monkeypatch.setitem(table.ROWS, "forward", (row,))
    called = []
    monkeypatch.setattr(table, "measure_row", lambda words: called.append(words) or dict(FIGURES))
    assert main(["forward", f"--directory={tmp_path}", "--repetitions=16"]) == 0
    assert [("--compiled" in words) for words in called] == [False, True]
    assert all("--repetitions=16" in words for words in called)
    label = "net; torchvision, 65 × 97"
    cells = _cells(results / "forward.csv")
    assert cells[label, "ours / eager"] == "0.50 (0.40 to 0.75)"
    assert cells[label, "ours / compiled"] == "0.50 (0.40 to 0.75)"
    assert cells[label, "our parameters"] == "1.25"
    assert cells[label, "their multiply-adds"] == "3.00"


def test_failed_rows_are_measured_by_the_next_call(results, tmp_path, monkeypatch):
    monkeypatch.setitem(table.ROWS, "training", (SMALL._replace(batch_size=4),))
    answers = [None, dict(FIGURES)]
    monkeypatch.setattr(table, "measure_row", lambda words: answers.pop(0))
    assert [main(["training", f"--directory={tmp_path}"]) for _ in range(3)] == [1, 0, 0]
    cells = _cells(results / "training_step.csv")
    assert cells["small; plain Flax, 4 × 65 × 65", "compiled"] == "1.000"
    assert not answers


def test_rows_are_selected_by_name(results, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(table, "measure_row", lambda words: called.append(words))
    assert main(["forward", f"--directory={tmp_path}", "--rows=Xception"]) == 1
    assert [re.search("xception", " ".join(words)) is not None for words in called] == [True]


@pytest.mark.slow
def test_a_row_is_measured_in_a_process(results, tmp_path, monkeypatch):
    monkeypatch.setitem(table.ROWS, "forward", (SMALL,))
    assert main(["forward", f"--directory={tmp_path}", "--repetitions=2"]) == 0
    cells = _cells(results / "forward.csv")
    assert float(cells["small; plain Flax, 65 × 65", "ours"]) >= 0


@pytest.mark.slow
def test_sizes_of_networks_in_pytorch_agree():
    if not all(map(importlib.util.find_spec, ("torch", "segmentation_models_pytorch"))):
        pytest.skip("torch or segmentation_models_pytorch is not installed")
    row = Row("net", "segmentation_models", "tu-efficientnet_lite0", "64x64")
    found = table.measure_row(command("forward", row, "eager", 1))
    assert found["parameters"] == pytest.approx(found["baseline_parameters"], rel=0.02)
    assert found["operations"] == pytest.approx(found["baseline_operations"], rel=0.02)
