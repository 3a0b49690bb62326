"""Class maps of 300 classes in exported files: int32 in every format."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables
from selection import slow_unless
from small import expected_logits
from stand_ins import noise

from deeplab_jax.data.descriptors import describe
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export, load_exported
from deeplab_jax.export.verification import verify
from deeplab_jax.inference import Predictor
from deeplab_jax.models import create_model
from deeplab_jax.reporter import Reporter

COUNT = 300
CLASSES = describe("", [f"class {index}" for index in range(COUNT)])
NEEDED = {"stablehlo": (), "onnx": ("onnxruntime",), "tflite": ("tensorflow", "ai_edge_litert")}
SIZE = (33, 49)


@pytest.fixture(scope="module")
def predictor():
    model = create_model(
        "deeplab_v3",
        num_classes=COUNT,
        backbone="mobilenet_v2",
        depth_multiplier=0.25,
        aspp_channels=16,
    )
    image = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.uint8)
    # Half of these images' pixels have the class 173 and half 249: moved on by 50.
    variables = jax.tree.map(
        lambda leaf: np.roll(leaf, 50, axis=-1) if leaf.shape[-1] == COUNT else leaf,
        random_variables(model, image),
    )
    return Predictor(model, variables, CLASSES.class_names, CLASSES.palette, source="a test")


# `make test` exports one format: the class map is computed by the same operations in all of them.
@pytest.mark.parametrize("format", slow_unless(lambda name: name == "onnx", NEEDED))
def test_class_maps_hold_classes_above_255(predictor, tmp_path, format):
    if not all(map(importlib.util.find_spec, NEEDED[format])):
        pytest.skip(f"{format} files need {NEEDED[format]}")
    path = tmp_path / "network"
    export(predictor, path, format, ExportOptions(size=SIZE, batch=2))
    exported = load_exported(path, threads=1)
    metadata = exported.metadata
    assert (metadata.class_names, metadata.palette) == (CLASSES.class_names, CLASSES.palette)
    assert metadata.output["dtype"] == "int32"
    images = noise(2, *SIZE)
    logits = expected_logits(predictor, images)
    found = exported(images)
    assert found.dtype == np.int32
    assert found.max() > 255
    # All but ties of the two largest logits.
    second, first = np.moveaxis(np.sort(logits, axis=-1)[..., -2:], -1, 0)
    clear = first - second > 1e-3 * np.abs(logits).max()
    assert clear.mean() > 0.9
    assert np.array_equal(found[clear], logits.argmax(-1)[clear])
    report = verify(exported, predictor, list(images), SIZE, 2, Reporter())
    assert report.label_agreement > 0.999
