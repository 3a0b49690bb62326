"""Engines: predictors whose network another runtime executes, and predictors of exported files."""

import dataclasses
import functools
import zipfile

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from selection import slow_unless
from small import NAMES, small_predictor
from stand_ins import noise, random_dataset

import deeplab_jax
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export import engines
from deeplab_jax.export.engines import load_file, with_engine
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export
from deeplab_jax.export.tflite import IDENTIFIER
from deeplab_jax.files import PROGRAM_CACHE
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.inference.forward import only_class_map
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.parallel import make_mesh
from deeplab_jax.reporter import Reporter

PACKAGES = {"onnx": ["onnx", "onnxruntime"], "tflite": ["tensorflow", "ai_edge_litert.interpreter"]}
TINY = {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "aspp_channels": 8}


@pytest.fixture(scope="module")
def predictor():
    return small_predictor("deeplab_v3", **TINY, output_stride=32).with_inference_size((65, 65))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The folder of traced and exported networks of this module."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def stored(directory, monkeypatch):
    monkeypatch.setenv(PROGRAM_CACHE, str(directory))
    return directory


@pytest.fixture(scope="module")
def onnx_file(predictor, tmp_path_factory):
    """A function that returns the path of the network in ONNX, exported once per options."""
    for package in PACKAGES["onnx"]:
        pytest.importorskip(package)

    @functools.cache
    def write(**options):
        path = tmp_path_factory.mktemp("file") / "network.onnx"
        export(predictor, path, "onnx", ExportOptions(**options))
        return path

    return write


def assert_same_classes(predictor, found, image):
    """Classes are equal but where two logits tie."""
    logits = predictor.logits(image)
    own = np.take_along_axis(logits, found[..., None], -1)[..., 0]
    np.testing.assert_allclose(own, logits.max(-1), rtol=0, atol=1e-3 * np.abs(logits).max())
    assert np.mean(found == predictor(image)) > 0.999


@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_masks_are_those_of_jax(predictor, stored, engine):
    for package in PACKAGES[engine]:
        pytest.importorskip(package)
    images = [noise(50, 65), noise(65, 41), noise(30, 30)]
    other = with_engine(predictor, engine, threads=1)
    for image, found in zip(images, other.predict_batch(images), strict=True):
        assert found.dtype == np.int32
        assert_same_classes(predictor, found, image)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "tflite"])
def test_masks_of_photographs_by_a_published_network(shared, stored, tmp_path, engine):
    for package in PACKAGES[engine]:
        pytest.importorskip(package)
    data = pytest.importorskip("skimage.data")
    weights = shared / "weights" / "deeplabv3_mnv2_voc_513_uint8.tflite"
    assert run(["convert", str(weights), f"--output={tmp_path / 'model'}"], Console()) == 0
    expected = deeplab_jax.load(tmp_path / "model")
    found = deeplab_jax.load(tmp_path / "model", engine=engine)
    for image in (data.astronaut(), data.chelsea(), data.coffee()):
        assert np.mean(found(image) == expected(image)) > 0.9999


@pytest.mark.parametrize(
    "options",
    slow_unless(
        lambda options: options.flip and options.scales == (1.0,),
        [
            InferenceOptions(flip=True, crf="deeplab"),
            InferenceOptions(scales=(0.5, 1.0), flip=True),
            InferenceOptions(tile=(65, 65), output_stride=16),
        ],
    ),
)
def test_options_of_inference(predictor, stored, options):
    pytest.importorskip("onnxruntime")
    image = noise(60, 65)
    expected = predictor.with_options(options).predict(image)
    found = with_engine(predictor.with_options(options), "onnx", threads=1).predict(image)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=2e-3)
    assert np.mean(found.class_map == expected.class_map) > 0.999


def test_a_network_is_exported_once(predictor, stored, monkeypatch):
    pytest.importorskip("onnxruntime")
    image = noise(20, 20)
    expected = with_engine(predictor, "onnx")(image)
    monkeypatch.setattr(engines, "export", None)
    np.testing.assert_array_equal(with_engine(predictor, "onnx")(image), expected)


def test_a_damaged_file_is_exported_again(predictor, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv(PROGRAM_CACHE, str(tmp_path))
    image = noise(20, 20)
    expected = with_engine(predictor, "onnx")(image)
    (path,) = tmp_path.glob("*.engine")
    path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(with_engine(predictor, "onnx")(image), expected)
    assert len(path.read_bytes()) > 1000


def test_a_cache_that_cannot_be_written_is_replaced(predictor, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(PROGRAM_CACHE, str(tmp_path / "file" / "programs"))
    image = noise(20, 20)
    assert_same_classes(predictor, with_engine(predictor, "onnx")(image), image)


def test_other_weights_have_another_file(predictor, stored):
    pytest.importorskip("onnxruntime")
    image = noise(65, 65)
    with_engine(predictor, "onnx")(image)
    before = set(stored.glob("*.engine"))
    variables = jax.tree.map(lambda leaf: 0.99 * leaf, predictor.variables)
    model = predictor.model
    changed = type(predictor)(model, variables, NAMES, predictor.palette, (65, 65))
    found = with_engine(changed, "onnx")(image)
    assert len(set(stored.glob("*.engine")) - before) == 1
    assert_same_classes(changed, found, image)


def test_engines_that_cannot_run_a_network(predictor):
    with pytest.raises(DeepLabError, match=r"oxnn.*onnx"):
        with_engine(predictor, "oxnn")
    architecture = dataclasses.replace(predictor.model.architecture, quantization="int8")
    integers = predictor.with_networks(lambda model, variables: engines.EngineNetwork(model, None))
    integers.model = predictor.model.clone(architecture=architecture)
    with pytest.raises(DeepLabError, match="a quantized network cannot be exported to onnx"):
        with_engine(integers, "onnx")
    network = engines.EngineNetwork(predictor.model, None)
    mesh = Mesh(np.array([jax.devices()[0]] * 2), ("data",))
    with pytest.raises(DeepLabError, match=r"the mesh has 2 devices; give mesh=parallel"):
        network.forward(InferenceOptions(), only_class_map, mesh)


@pytest.mark.parametrize("batch", [None, 2])
def test_an_exported_file_is_a_model(predictor, onnx_file, batch):
    path, images = onnx_file(batch=batch), [noise(50, 65), noise(97, 80), noise(65, 65)]
    found = deeplab_jax.load(path)
    assert (found.class_names, found.palette) == (predictor.class_names, predictor.palette)
    assert (found.source, found.inference_size) == (str(path), (65, 65))
    for image, class_map in zip(images, found.predict_batch(images), strict=True):
        assert_same_classes(predictor, class_map, image)
    tiled = InferenceOptions(tile=(65, 65), overlap=0.0)
    image = noise(65, 100)
    assert_same_classes(predictor.with_options(tiled), found.with_options(tiled)(image), image)


def test_images_of_five_bands(stored, tmp_path):
    pytest.importorskip("onnxruntime")
    statistics = {"pixel_mean": (9e3,) * 5, "pixel_std": (3e3,) * 5, "preprocessing": "mean_std"}
    given = TINY | statistics | {"in_channels": 5, "image_dtype": "uint16"}
    predictor = small_predictor("deeplab_v3", **given, output_stride=32)
    image = np.random.default_rng(0).integers(0, 2**14, (33, 60, 5), dtype=np.uint16)
    assert_same_classes(predictor, with_engine(predictor, "onnx")(image), image)
    export(predictor, tmp_path / "network.onnx", "onnx", ExportOptions(batch=1))
    found = deeplab_jax.load(tmp_path / "network.onnx")
    assert found.bands == predictor.bands
    assert_same_classes(predictor, found(image), image)


def test_a_file_of_one_size_pads_images_to_it(predictor, onnx_file):
    found = load_file(onnx_file(size=(65, 97), argmax=False), "onnx")
    image = noise(40, 90)
    expected = predictor.with_inference_size((65, 97)).predict(image)
    np.testing.assert_allclose(
        found.predict(image).probabilities, expected.probabilities, rtol=0, atol=2e-3
    )
    # Videos change the inference size.
    assert found.with_inference_size(None)(image).shape == (40, 90)
    with pytest.raises(DeepLabError, match=r"but an image has 66x97; give --tile=65x97"):
        found(noise(66, 97))
    assert found.with_options(InferenceOptions(tile=(65, 97), overlap=0.0))(
        noise(66, 97)
    ).shape == (66, 97)


def test_a_file_of_one_size_is_evaluated_at_this_size(onnx_file):
    found = load_file(onnx_file(size=(64, 97), argmax=False))
    dataset = random_dataset([(40, 90), (64, 97)])
    mesh = make_mesh(jax.devices()[:1])
    settings = {"mesh": mesh, "batch_size": 1, "reporter": Reporter()}
    metrics = deeplab_jax.evaluate(found, dataset, **settings)
    assert metrics["settings"]["size"] == [64, 97]
    confusion = ConfusionMatrix.empty(len(NAMES))
    for index in range(len(dataset)):
        label, class_map = dataset[index]["label"], found(dataset[index]["image"])
        confusion = confusion.merge(ConfusionMatrix.from_labels(label, class_map, len(NAMES)))
    assert metrics["confusion_matrix"] == confusion.counts.tolist()
    with pytest.raises(DeepLabError, match="but an image has 66x97; export it with"):
        deeplab_jax.evaluate(found, random_dataset([(66, 97)]), **settings)
    with pytest.raises(DeepLabError, match=r"takes only images of 64x97 .*omit size"):
        deeplab_jax.evaluate(found, dataset, size=(65, 97), **settings)


def test_a_file_of_a_size_that_no_tile_has_must_be_exported_again(onnx_file):
    found = load_file(onnx_file(size=(64, 97)), "onnx")
    advice = r"; export it with --size=65x97 and give --tile=65x97, or export it with --size=any"
    with pytest.raises(DeepLabError, match=f"but an image has 66x97{advice}"):
        found(noise(66, 97))
    with pytest.raises(DeepLabError, match=f"not tiles of 65x97{advice}"):
        found.with_options(InferenceOptions(tile=(64, 97)))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (InferenceOptions(output_stride=8), "supports only output stride 32"),
        (InferenceOptions(scales=(0.5, 1.0)), "supports only the scale 1"),
        (InferenceOptions(flip=True), "--argmax=outside"),
        (InferenceOptions(crf="deeplab"), "--argmax=outside"),
        (InferenceOptions(tile=(33, 65)), "--tile=65x97"),
    ],
)
def test_options_that_a_file_does_not_support(onnx_file, options, reason):
    found = load_file(onnx_file(size=(65, 97)))
    with pytest.raises(DeepLabError, match=reason) as error:
        found.with_options(options)
    assert "network.onnx" in str(error.value)
    with pytest.raises(DeepLabError, match=r"returns only classes.*--argmax=outside"):
        found.predict(noise(65, 97))


def test_files_that_are_no_models(predictor, onnx_file, tmp_path):
    path = onnx_file(size=(65, 97))
    with pytest.raises(DeepLabError, match="but engine=tflite"):
        deeplab_jax.load(path, engine="tflite")
    with pytest.raises(DeepLabError, match="omit checkpoint and ema"):
        deeplab_jax.load(path, checkpoint="last")
    onnx = pytest.importorskip("onnx")
    content = onnx.load(path)
    del content.metadata_props[:]
    onnx.save(content, tmp_path / "foreign.onnx")
    with pytest.raises(DeepLabError, match=r"no metadata of deeplab_jax.*convert"):
        deeplab_jax.load(tmp_path / "foreign.onnx")
    earlier = dataclasses.replace(load_file(path).file.metadata, model=None)
    with pytest.raises(DeepLabError, match="export it again"):
        engines.FilePredictor(engines.ExportedNetwork(earlier, None), "old.onnx")


def test_a_published_tflite_file_with_an_appended_archive_is_recognized(tmp_path):
    pytest.importorskip("ai_edge_litert.interpreter")
    path = tmp_path / "published.tflite"
    path.write_bytes(bytes(4) + IDENTIFIER)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "background")
    with pytest.raises(DeepLabError, match=r"cannot be run as a TFLite file.*deeplab-jax convert"):
        deeplab_jax.load(path)
