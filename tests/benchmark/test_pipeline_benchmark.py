"""`benchmark pipeline` on datasets of any bands."""

import json

import numpy as np
import pytest

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data import ArrayDataset
from experiments.benchmarks.__main__ import main

WORDS = ["pipeline", "--dataset=bands", "--data_dir=data", "--num_images=2"]


@pytest.fixture(params=[1, 4])
def bands(request, monkeypatch):
    """Replaces the prepared dataset by an image of 1 or 4 bands that is smaller than the crop."""
    image, mask = np.zeros((20, 20, request.param), np.uint8), np.ones((20, 20), np.uint8)
    dataset = ArrayDataset([image], [mask], ["a", "b"])
    monkeypatch.setattr("deeplab_jax.data.open_dataset", lambda *_: dataset)


def test_images_of_any_bands_are_measured(bands, capsys):
    assert run(["benchmark", *WORDS, "--crop=33x33", "--json"], Console()) == 0
    assert json.loads(capsys.readouterr().out)["images_per_second"] > 0


def test_the_baseline_refuses_images_that_are_not_rgb(bands, capsys):
    assert main([*WORDS, "--size=33x33"]) == 2
    assert "not 8-bit RGB" in capsys.readouterr().err
