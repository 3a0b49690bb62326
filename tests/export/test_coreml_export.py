"""Core ML packages: their interface, and their operations executed by their documented meaning.

Core ML itself runs on Apple devices only.
"""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from small import NAMES, PALETTE, depthwise_layers, expected_logits, small_predictor
from stand_ins import noise
from test_exported_networks import NETWORKS, assert_same

import deeplab_jax
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.metadata import KEY, parse_metadata
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export

pytest.importorskip("coremltools", reason="it writes the packages")
mil_interpreter = pytest.importorskip("mil_interpreter")

# Suits networks with aligned corners; two tests then compile the same network.
SIZE = (49, 65)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "v3" else pytest.mark.slow) for name in NETWORKS],
)
def test_same_logits_by_the_documented_operations(tmp_path, name):
    architecture, overrides = NETWORKS[name]
    predictor, package = small_predictor(architecture, **overrides), tmp_path / "net.mlpackage"
    odd = int(predictor.model.architecture.align_corners)
    size = (48 + odd, 64 + odd)
    export(predictor, package, "coreml", ExportOptions(size=size, argmax=False))
    _, program = mil_interpreter.load_program(package)
    image = noise(1, *size)
    pixels = image.transpose(0, 3, 1, 2).astype(np.float32)
    found = mil_interpreter.run(program, image=pixels)["logits"]
    assert_same(found, expected_logits(predictor, image))
    convolutions = [op for op in program.operations if op.op_type == "conv"]
    depthwise = [op for op in convolutions if 1 < op.groups.val == op.weight.shape[0]]
    assert len(depthwise) == depthwise_layers(predictor)
    if name == "v3":
        kinds = Counter(op.op_type for op in program.operations)
        # One multiplication and one subtraction normalize the image; the rest is folded.
        assert kinds["mul"] + kinds["sub"] + kinds["real_div"] <= 2
        assert kinds["relu6"] >= 10
        assert not kinds["clip"] + kinds["pad"]


def test_interface_of_a_package(tmp_path):
    architecture, overrides = NETWORKS["v3"]
    predictor, package = small_predictor(architecture, **overrides), tmp_path / "net.mlpackage"
    package.mkdir()
    (package / "old").touch()
    options = export(predictor, package, "coreml", ExportOptions(size=SIZE))
    assert options.size == SIZE
    assert not (package / "old").exists()
    specification, program = mil_interpreter.load_program(package)
    description = specification.description
    (given,), (result,) = description.input, description.output
    assert given.name == "image"
    assert (given.type.imageType.height, given.type.imageType.width) == SIZE
    assert given.type.imageType.colorSpace == given.type.imageType.RGB
    assert result.name == "class_map"
    assert list(result.type.multiArrayType.shape) == [1, *SIZE]
    assert result.type.multiArrayType.dataType == result.type.multiArrayType.INT32
    defined = description.metadata.userDefined
    metadata = parse_metadata(defined[KEY], "the package")
    assert (metadata.class_names, metadata.palette) == (NAMES, PALETTE)
    assert metadata.input["dtype"] == "image"
    assert metadata.input["shape"] == [1, *SIZE, 3]
    preview = json.loads(defined["com.apple.coreml.model.preview.params"])
    assert preview == {
        "labels": list(NAMES),
        "colors": ["#4682b4", "#804080", "#6b8e23", "#00008e"],
    }
    assert defined["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    image = noise(1, *SIZE)
    pixels = image.transpose(0, 3, 1, 2).astype(np.float32)
    found = mil_interpreter.run(program, image=pixels)["class_map"]
    assert found.dtype == np.int32
    assert np.mean(found == expected_logits(predictor, image).argmax(-1)) > 0.999


# tests/export/test_exported_networks.py checks the same option in other formats.
@pytest.mark.slow
def test_normalization_outside(tmp_path):
    architecture, overrides = NETWORKS["bgr"]
    predictor, package = small_predictor(architecture, **overrides), tmp_path / "net.mlpackage"
    options = ExportOptions(size=(33, 49), preprocessing=False, argmax=False)
    export(predictor, package, "coreml", options)
    specification, program = mil_interpreter.load_program(package)
    array = specification.description.input[0].type.multiArrayType
    assert list(array.shape) == [1, 33, 49, 3]
    metadata = parse_metadata(specification.description.metadata.userDefined[KEY], "the package")
    image = noise(1, 33, 49)
    found = mil_interpreter.run(program, image=metadata.normalized(image))["logits"]
    assert_same(found, expected_logits(predictor, image))


@pytest.mark.slow
def test_float16(tmp_path):
    architecture, overrides = NETWORKS["v3"]
    predictor = small_predictor(architecture, **overrides)
    sizes = {}
    for dtype in ("float32", "float16"):
        package = tmp_path / f"{dtype}.mlpackage"
        export(predictor, package, "coreml", ExportOptions(size=(65, 65), dtype=dtype))
        sizes[dtype] = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    assert sizes["float16"] < 0.6 * sizes["float32"]
    _, program = mil_interpreter.load_program(tmp_path / "float16.mlpackage")
    image = noise(1, 65, 65)
    pixels = image.transpose(0, 3, 1, 2).astype(np.float32)
    found = mil_interpreter.run(program, image=pixels)["class_map"]
    assert np.mean(found == expected_logits(predictor, image).argmax(-1)) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.9999), ("float16", 0.99)])
def test_classes_of_photographs_by_a_published_network(shared, tmp_path, dtype, least):
    data = pytest.importorskip("skimage.data")
    weights = shared / "weights" / "deeplabv3_mnv2_voc_513_uint8.tflite"
    assert run(["convert", str(weights), f"--output={tmp_path / 'model'}"], Console()) == 0
    predictor = deeplab_jax.load(tmp_path / "model").with_inference_size(None)
    package = tmp_path / "net.mlpackage"
    export(predictor, package, "coreml", ExportOptions(size=(257, 257), dtype=dtype))
    _, program = mil_interpreter.load_program(package)
    for photograph in (data.astronaut(), data.chelsea(), data.coffee()):
        image = cv2.resize(photograph, (257, 257))
        pixels = image[None].transpose(0, 3, 1, 2).astype(np.float32)
        found = mil_interpreter.run(program, image=pixels)["class_map"]
        expected = predictor.logits(image).argmax(-1)
        assert np.mean(found == expected) > least


def test_packages_that_are_not_written(tmp_path):
    predictor = small_predictor(*NETWORKS["v3"][:1], **NETWORKS["v3"][1])
    with pytest.raises(DeepLabError, match=r"must end in \.mlpackage"):
        export(predictor, tmp_path / "network", "coreml", ExportOptions(size=(33, 33)))
    options = ExportOptions(size=(33, 33), batch=2)
    with pytest.raises(DeepLabError, match="one image per call"):
        export(predictor, tmp_path / "net.mlpackage", "coreml", options)
    assert not list(tmp_path.iterdir())
