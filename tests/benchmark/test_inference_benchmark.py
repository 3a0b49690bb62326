"""`benchmark inference` compares the engines side by side."""

import json

import pytest

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run

NETWORK = ["benchmark", "inference", "--network=deeplab_v3/mobilenet_v2", "--size=65x65"]


@pytest.mark.slow
def test_engines_side_by_side(capsys):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    words = [*NETWORK, "--repetitions=1", "--engines=jax,onnx"]
    assert run([*words, "--json"], Console()) == 0
    engines = json.loads(capsys.readouterr().out)["engines"]
    assert list(engines) == ["jax", "onnx"]
    for row in engines.values():
        assert row["seconds"] > 0
        assert row["peak_bytes"] > row["file_bytes"] / 2 > 0


def test_an_unknown_engine_is_refused_at_once(capsys):
    assert run([*NETWORK, "--engines=jax,torch"], Console()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "torch" in error
