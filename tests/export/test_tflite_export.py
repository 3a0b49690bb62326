"""Exported TFLite files, in the interpreter that they are made for."""

import os
import warnings
from collections import Counter

import numpy as np
import pytest
from small import NAMES, PALETTE, depthwise_layers, expected_logits, small_predictor
from stand_ins import noise
from test_exported_networks import NETWORKS, assert_same

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export, load_exported
from deeplab_jax.export.tflite import read_tflite_metadata

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("tensorflow", reason="it makes the files")
    pytest.importorskip("ai_edge_litert.interpreter", reason="it executes them")
tflite = pytest.importorskip("tflite")


def operators(path):
    """Returns how often the file has each operation, by name."""
    model = tflite.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    codes = [
        model.OperatorCodes(graph.Operators(index).OpcodeIndex()).BuiltinCode()
        for index in range(graph.OperatorsLength())
    ]
    return Counter(tflite.opcode2name(code) for code in codes)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "v3" else pytest.mark.slow) for name in NETWORKS],
)
def test_same_logits(tmp_path, name):
    architecture, overrides = NETWORKS[name]
    predictor, path = small_predictor(architecture, **overrides), tmp_path / "network.tflite"
    odd = int(predictor.model.architecture.align_corners)
    size = (48 + odd, 64 + odd)
    export(predictor, path, "tflite", ExportOptions(size=size, batch=1, argmax=False))
    found = operators(path)
    assert found["DEPTHWISE_CONV_2D"] == depthwise_layers(predictor)
    exported = load_exported(path, threads=1)
    assert (exported.metadata.class_names, exported.metadata.palette) == (NAMES, PALETTE)
    # Batches need not be what the file says.
    for batch in (1, 3):
        images = noise(batch, *size)
        assert_same(exported(images), expected_logits(predictor, images))
    if name == "v3":
        # One multiplication and one subtraction normalise the image; the rest is folded.
        assert found["MUL"] + found["SUB"] + found["ADD"] <= 2 + 10
        assert not found["FULLY_CONNECTED"]
        assert found["RESIZE_BILINEAR"] == 2
        assert not found["PAD"]


@pytest.mark.slow
def test_class_maps_of_an_open_batch(tmp_path):
    architecture, overrides = NETWORKS["v3"]
    predictor, path = small_predictor(architecture, **overrides), tmp_path / "network.tflite"
    export(predictor, path, "tflite", ExportOptions(size=(33, 49), preprocessing=False))
    exported, images = load_exported(path), noise(2, 33, 49)
    found = exported(images)
    assert found.dtype == np.int32
    assert np.mean(found == expected_logits(predictor, images).argmax(-1)) > 0.999


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no network at all")
    with pytest.raises(DeepLabError, match="no TFLite file"):
        read_tflite_metadata(tmp_path / "text")


@pytest.mark.slow
def test_weights_in_float16(tmp_path):
    architecture, overrides = NETWORKS["v3"]
    predictor, images = small_predictor(architecture, **overrides), noise(2, 65, 65)
    for dtype in ("float32", "float16"):
        options = ExportOptions(size=(65, 65), argmax=False, dtype=dtype)
        export(predictor, tmp_path / dtype, "tflite", options)
    sizes = [(tmp_path / dtype).stat().st_size for dtype in ("float32", "float16")]
    assert sizes[1] < 0.6 * sizes[0]
    exported = load_exported(tmp_path / "float16", threads=1)
    assert exported.metadata.dtype == "float16"
    expected = expected_logits(predictor, images)
    assert np.mean(exported(images).argmax(-1) == expected.argmax(-1)) > 0.98
    with pytest.raises(DeepLabError, match="8-bit integers; omit dtype"):
        export(predictor, tmp_path / "both", "tflite", options, images)


@pytest.mark.slow
def test_integers(tmp_path):
    architecture, overrides = NETWORKS["v3"]
    predictor, options = small_predictor(architecture, **overrides), ExportOptions(size=(65, 65))
    images = noise(8, 65, 65)
    for name, calibration in (("floats", None), ("integers", images)):
        export(predictor, tmp_path / name, "tflite", options, calibration)
    assert operators(tmp_path / "integers")["QUANTIZE"] >= 1
    sizes = {name: (tmp_path / name).stat().st_size for name in ("floats", "integers")}
    assert sizes["integers"] < 0.5 * sizes["floats"]
    floats, integers = (load_exported(tmp_path / name)(images) for name in ("floats", "integers"))
    assert integers.dtype == np.int32
    assert np.mean(floats == integers) > 0.9
