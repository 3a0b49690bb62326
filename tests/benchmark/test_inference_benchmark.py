"""`benchmark inference` compares the engines side by side; defaults of the benchmarks."""

import json
import os

import pytest

from deeplab_jax.benchmark import engines, machine, networks, start
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run

NETWORK = ["benchmark", "inference", "--network=deeplab_v3/mobilenet_v2", "--size=65x65"]


@pytest.mark.slow
def test_engines_side_by_side(capsys):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    words = [*NETWORK, "--repetitions=1", "--engines=jax,onnx"]
    assert run([*words, "--json"], Console()) == 0
    rows = json.loads(capsys.readouterr().out)["engines"]
    assert list(rows) == ["jax", "onnx"]
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["peak_bytes"] > row["file_bytes"] / 2 > 0


def test_an_unknown_engine_is_refused_at_once(capsys):
    assert run([*NETWORK, "--engines=jax,torch"], Console()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "torch" in error


def test_on_a_tpu_the_engine_jax_is_not_measured_in_a_second_process(monkeypatch, capsys):
    measured = []

    def measure_models(models, size, batch_size, *, repetitions, reporter):
        measured.extend(models)
        return {}

    monkeypatch.setattr("jax.default_backend", lambda: "tpu")
    monkeypatch.setattr(networks, "measure_network", lambda *_, **__: {})
    monkeypatch.setattr(machine, "measure_peaks", lambda dtype: {})
    monkeypatch.setattr(engines, "measure_models", measure_models)
    monkeypatch.setattr(engines, "write_random_model", lambda *_: None)
    monkeypatch.setattr("deeplab_jax.loading.load", lambda path: None)
    monkeypatch.setattr("deeplab_jax.export.runtimes.export", lambda *_: None)
    assert run([*NETWORK, "--engines=jax,onnx"], Console()) == 0
    assert measured == ["onnx"]
    assert "only one process at a time can use a TPU" in capsys.readouterr().err
    assert run([*NETWORK, "--engines=jax"], Console()) == 0
    assert measured == ["onnx"]


def test_memory_that_the_system_does_not_report_is_unknown():
    assert engines.process_memory("VmNothing") is None


def test_cores_are_counted_on_systems_that_do_not_report_those_of_a_process(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.describe_machine()["cores"] == 6


def test_training_steps_have_a_default_batch_that_image_pooling_allows(monkeypatch):
    batches = {}

    def measure_network(network, size, batch_size, dtype, *, training, repetitions):
        batches["training" if training else "inference"] = batch_size
        return {}

    def measure_start(network, crop, batch_size, dtype):
        batches["compile"] = batch_size
        return {}

    monkeypatch.setattr(networks, "measure_network", measure_network)
    monkeypatch.setattr(start, "measure_start", measure_start)
    monkeypatch.setattr(machine, "measure_peaks", lambda dtype: {})
    for words in (["inference", "--engines="], ["training"], ["compile"]):
        assert run(["benchmark", *words], Console()) == 0
    assert batches == {"inference": 1, "training": 4, "compile": 4}
    assert run(["benchmark", "training", "--batch_size=2"], Console()) == 0
    assert batches["training"] == 2
