"""The real export command, and what its files give at sizes that it was not made for."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables

import deeplab_jax
from deeplab_jax.checkpointing import ModelDescription, write_model
from deeplab_jax.data.descriptors import VOC
from deeplab_jax.data.images import read_image

WEIGHTS = "deeplabv3_mnv2_dm05_voc_257_float.tflite"
# Packages that make and run the files of a format.
PACKAGES = {
    "stablehlo": (),
    "onnx": ("onnx", "onnxruntime"),
    "tflite": ("tensorflow", "ai_edge_litert"),
}
# Format, size that is exported, and sizes at which the file is compared.
FILES = [
    ("onnx", "any", "257x257,513x513,385x129"),
    ("onnx", "512x512", None),
    ("stablehlo", "any", "257x257,513x513,385x129"),
    ("stablehlo", "512x512", None),
    ("tflite", "any", None),
    ("tflite", "512x512", None),
    ("tflite", "513x513", None),
]
COMPARED = re.compile(
    r"at (\d+×\d+), batch \d+: same class at (\S+) % of pixels"
    r"(?:; elsewhere, logits of the two classes differ by (\S+))?"
)

pytestmark = pytest.mark.slow


def v3plus(folder):
    """Writes a v3+ with an image pooling of its crop, with random weights."""
    overrides = {
        "backbone": "mobilenet_v2",
        "depth_multiplier": 0.25,
        "aspp_channels": 32,
        "separable": True,
        "image_pooling": "crop",
        "pooling_crop": (257, 257),
    }
    description = ModelDescription(
        "deeplab_v3plus", overrides, VOC.class_names, VOC.palette, inference_size=(257, 257)
    )
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.uint8)
    write_model(folder, description, random_variables(description.create_model(), image))


@pytest.fixture(scope="module")
def models(commands, shared, tmp_path_factory):
    """Model directories by name."""
    folder = tmp_path_factory.mktemp("models")
    commands.run("convert", shared / "weights" / WEIGHTS, f"--output={folder / 'published'}")
    v3plus(folder / "v3plus")
    return {name: folder / name for name in ("published", "v3plus")}


@pytest.fixture(scope="module")
def photographs(shared):
    folder = shared / "data" / "voc2012" / "JPEGImages"
    return sorted(folder.glob("*.jpg"))[:6]


def exported(commands, model, photographs, output, format, size, compared):
    """Exports and compares; returns (size, share of pixels in %, margin) of each comparison."""
    for package in PACKAGES[format]:
        pytest.importorskip(package)
    words = [f"--model={model}", f"--format={format}", f"--output={output}", f"--size={size}"]
    verify = [f"--verify={','.join(map(str, photographs))}"]
    verify += [f"--verify_size={compared}"] if compared else []
    done = commands.run("export", *words, *verify)
    return [
        (size, float(share), float(margin or 0))
        for size, share, margin in COMPARED.findall(done.stdout)
    ]


@pytest.mark.parametrize(("format", "size", "compared"), FILES)
@pytest.mark.parametrize("name", ["published", "v3plus"])
def test_files_equal_the_network(
    commands, models, photographs, tmp_path, name, format, size, compared
):
    found = exported(commands, models[name], photographs, tmp_path / "file", format, size, compared)
    expected = compared or {"any": "257x257"}.get(size, size)
    assert {size for size, *_ in found} == set(expected.replace("x", "×").split(","))
    for _, share, margin in found:
        assert share >= 99.99
        assert margin <= 1e-3


def test_default_verification_compares_further_sizes(commands, models, photographs, tmp_path):
    """By default the file is compared below and above the crop of image pooling, too."""
    output = tmp_path / "file"
    found = exported(commands, models["published"], photographs[:2], output, "onnx", "any", None)
    assert [size for size, *_ in found] == ["257×257", "193×129", "329×393"]
    assert min(share for _, share, _ in found) >= 99.99


def test_onnx_runtime_alone(commands, models, photographs, tmp_path):
    """No code of this package between the file and the images."""
    onnxruntime = pytest.importorskip("onnxruntime")
    output = tmp_path / "published.onnx"
    commands.run("export", f"--model={models['published']}", "--format=onnx", f"--output={output}")
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    predictor = deeplab_jax.load(models["published"])
    network = jax.jit(predictor.model.apply)
    for path in photographs[:3]:
        image = np.resize(read_image(path), (513, 513, 3))[None]
        (labels,) = session.run(None, {"image": image})
        logits = np.asarray(network(predictor.variables, image))
        differs = labels != logits.argmax(-1)
        assert differs.mean() <= 1e-4
        chosen = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
        assert (logits.max(-1) - chosen).max() <= 1e-3
    with pytest.raises(Exception, match="must_be_a_multiple_of_8_plus_1"):
        session.run(None, {"image": np.zeros((1, 512, 513, 3), np.uint8)})
