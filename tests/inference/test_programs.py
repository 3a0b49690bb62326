import os

import jax
import numpy as np
import pytest
from random_variables import random_variables

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.files import PROGRAM_CACHE
from deeplab_jax.inference import Predictor, programs
from deeplab_jax.inference.forward import forward_pass
from deeplab_jax.models import create_model

IMAGE = np.random.default_rng(0).integers(0, 256, (33, 33, 3), dtype=np.uint8)
CLASSES = ("sky", "tree", "road")


@pytest.fixture(scope="module")
def network():
    """A small network with variables, as (model, variables)."""
    keywords = {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "aspp_channels": 8}
    model = create_model("deeplab_v3", num_classes=len(CLASSES), output_stride=32, **keywords)
    return model, random_variables(model, jax.ShapeDtypeStruct((1, 33, 33, 3), np.uint8))


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRAM_CACHE, str(tmp_path))
    return tmp_path


def logits(network):
    # As in a new process.
    forward_pass.cache_clear()
    return Predictor(*network, CLASSES, bit_interleaved_palette(len(CLASSES))).logits(IMAGE)


def stored_programs(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_stored_program_computes_the_same_and_is_not_traced_again(
    network, directory, monkeypatch
):
    monkeypatch.delenv(PROGRAM_CACHE)
    expected = logits(network)
    assert stored_programs(directory) == {}
    monkeypatch.setenv(PROGRAM_CACHE, str(directory))
    np.testing.assert_array_equal(logits(network), expected)
    written = stored_programs(directory)
    assert len(written) == 1
    monkeypatch.setattr(type(network[0]), "class_map_and_logits", None)
    np.testing.assert_array_equal(logits(network), expected)
    assert stored_programs(directory) == written


def test_another_network_has_another_program(network, directory):
    model, variables = network
    logits(network)
    logits((model.clone(), variables))
    assert len(stored_programs(directory)) == 1
    changed = create_model(
        "deeplab_v3", **{**model.architecture.describe(), "preprocessing": "mean"}
    )
    logits((changed, variables))
    assert len(stored_programs(directory)) == 2


def test_a_damaged_program_is_written_again(network, directory):
    expected = logits(network)
    (path,) = directory.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no program"):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(logits(network), expected)
        assert len(path.read_bytes()) == len(whole)


def test_a_cache_that_cannot_be_written_is_ignored(network, tmp_path, monkeypatch):
    monkeypatch.delenv(PROGRAM_CACHE, raising=False)
    expected = logits(network)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(PROGRAM_CACHE, str(tmp_path / "file" / "programs"))
    np.testing.assert_array_equal(logits(network), expected)


def test_the_oldest_programs_are_removed(network, directory, monkeypatch):
    monkeypatch.setattr(programs, "MAX_PROGRAMS", 2)
    for number in range(3):
        (directory / f"{number}.stablehlo").write_bytes(b"")
        os.utime(directory / f"{number}.stablehlo", (number, number))
    logits(network)
    assert len(stored_programs(directory)) == 2
    assert "2.stablehlo" in stored_programs(directory)
