"""Exported files against the network, in the runtimes that they are made for."""

import json
import re
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from selection import one_of_each_family, slow_unless
from small import NAMES, PALETTE, depthwise_layers, expected_logits, small_predictor
from stand_ins import noise

from deeplab_jax.backbones.entries import BACKBONES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.program import ExportOptions, input_specification, make_program
from deeplab_jax.export.runtimes import export, load_exported
from deeplab_jax.export.translation import Writer, translate
from deeplab_jax.export.verification import cases
from deeplab_jax.models.parts import HEADS

LOGITS = ExportOptions(argmax=False)
MOBILE = {"backbone": "mobilenet_v2", "depth_multiplier": 0.25, "aspp_channels": 16}
NARROW = {"aspp_channels": 16}
CROP = {"image_pooling": "crop", "pooling_crop": (33, 65)}
# Together they have every operation of the family.
NETWORKS = {
    "v1": ("deeplab_v1", {"backbone": "vgg_16", "fc_channels": 0}),
    "v2": ("deeplab_v2", {"backbone": "resnet_18"}),
    "slim": ("deeplab_v3", NARROW | {"backbone": "resnet_18"}),
    "v3": ("deeplab_v3", MOBILE),
    "v3plus": ("deeplab_v3plus", MOBILE | {"separable": True}),
    "crop": ("deeplab_v3", MOBILE | {"image_pooling": "crop", "pooling_crop": (65, 97)}),
    "crop_v3plus": ("deeplab_v3plus", MOBILE | {"separable": True} | CROP),
    "dpc": ("deeplab_v3plus", MOBILE | {"head": "dpc", "decoder": "conv2_conv3"}),
    "msc": ("deeplab_v2", {"backbone": "resnet_18", "multi_scale": (1, 0.75, 0.5)}),
    "lr_aspp": ("deeplab_v3", {"backbone": "mobilenet_v3_small_seg", "depth_multiplier": 0.25}),
    "torchvision": (
        "deeplab_v3",
        {"backbone": "mobilenet_v3_small", "head": "lr_aspp", "align_corners": False}
        | {"stride_placement": "torchvision", "preprocessing": "mean_std"},
    ),
    "convnext": ("deeplab_v3plus", NARROW | {"backbone": "timm/convnext_atto"}),
    "convnext_v2": ("deeplab_v3", NARROW | {"backbone": "timm/convnextv2_atto"}),
    "regnet": ("deeplab_v3", NARROW | {"backbone": "timm/regnety_002"}),
    "efficientnet": ("deeplab_v3plus", NARROW | {"backbone": "timm/tf_efficientnet_b0"}),
    "mobilenet_v4": ("deeplab_v3", NARROW | {"backbone": "timm/mobilenetv4_conv_small_035"}),
    "resnet_d": ("deeplab_v3", NARROW | {"backbone": "timm/resnet18d"}),
    "bgr": ("deeplab_v3", MOBILE | {"preprocessing": "caffe_bgr", "aux_head": False}),
    "spp": ("deeplab_v3", MOBILE | {"head": "spp"}),
}
QUICK = ("crop", "slim", "spp")
CASES = [
    pytest.param(name, id=name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in NETWORKS
]
# Networks with `spp` have variable sizes in StableHLO only; another test exports them.
CASES_OF_OPEN_SIZES = [case for case in CASES if case.id != "spp"]


@pytest.fixture(scope="module")
def made():
    """Predictors by the names of NETWORKS, each made once."""
    kept = {}

    def get(name):
        if name not in kept:
            architecture, overrides = NETWORKS[name]
            kept[name] = small_predictor(architecture, **overrides)
        return kept[name]

    return get


def assert_same(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 * scale)


# `make test` reads ONNX here; test_operations_of_each_platform reads StableHLO of open sizes.
@pytest.mark.parametrize("format", slow_unless(lambda name: name == "onnx", ["stablehlo", "onnx"]))
@pytest.mark.parametrize("name", CASES_OF_OPEN_SIZES)
def test_open_sizes_and_batches(made, tmp_path, name, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    predictor = made(name)
    export(predictor, tmp_path / "network", format, LOGITS)
    exported = load_exported(tmp_path / "network", threads=1)
    odd = int(predictor.model.architecture.align_corners)
    for batch, height, width in [(1, 64, 64), (3, 32, 96), (1, 128, 96), (2, 96, 160)]:
        images = noise(batch, height + odd, width + odd)
        assert_same(exported(images), expected_logits(predictor, images))


def test_atrous_convolutions_are_traced_with_open_sizes(made):
    """The implementation for CPUs asks how large a map is; the plain one must not."""
    program = make_program(made("v2"), LOGITS)
    shape = jax.eval_shape(program.function, input_specification(program)).shape
    assert str(shape) == "(N, 8*h + 1, 8*w + 1, 4)"


def test_operations_of_each_platform(made, tmp_path):
    predictor, options = made("crop"), ExportOptions(argmax=False, portable=False)
    export(predictor, tmp_path / "network", "stablehlo", options)
    images = noise(2, 97, 129)
    found = load_exported(tmp_path / "network")(images)
    assert_same(found, expected_logits(predictor, images))
    with pytest.raises(DeepLabError, match="requires the format stablehlo"):
        export(predictor, tmp_path / "other", "onnx", options)


def test_calibration_for_other_formats_than_tflite_is_refused(made, tmp_path):
    with pytest.raises(DeepLabError, match="requires the format tflite, got stablehlo"):
        export(made("v3"), tmp_path / "file", "stablehlo", calibration=[noise(1, 33, 33)[0]])
    assert not (tmp_path / "file").exists()


def test_only_jax_is_needed(made, tmp_path):
    """The lines of docs/guides/deploy.md run in an interpreter without this package."""
    path = tmp_path / "network.stablehlo"
    export(made("v3"), path, "stablehlo")
    image = noise(1, 33, 49)
    np.save(tmp_path / "image.npy", image)
    script = f"""
import json, sys, zipfile
sys.modules["deeplab_jax"] = sys.modules["flax"] = None
import jax, jax.export, numpy as np
with zipfile.ZipFile({str(path)!r}) as archive:
    network = jax.export.deserialize(bytearray(archive.read("network.stablehlo")))
    metadata = json.loads(archive.read("metadata.json"))
class_map = jax.jit(network.call)(np.load({str(tmp_path / "image.npy")!r}))
np.save({str(tmp_path / "found.npy")!r}, class_map)
print(json.dumps(metadata["class_names"]))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert json.loads(told.stdout) == list(NAMES)
    expected = expected_logits(made("v3"), image).argmax(-1)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected)


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_one_depthwise_convolution_a_layer(made, tmp_path, format):
    predictor, path = made("v3"), tmp_path / "network"
    export(predictor, path, format, LOGITS)
    if format == "stablehlo":
        with zipfile.ZipFile(path) as archive:
            content = bytearray(archive.read("network.stablehlo"))
        text = jax.export.deserialize(content).mlir_module()
        found = sum(int(g) > 1 for g in re.findall(r"feature_group_count = (\d+)", text))
        # Folded: nothing normalises at run time.
        assert "rsqrt" not in text
    else:
        onnx = pytest.importorskip("onnx")
        nodes = onnx.load(path).graph.node
        found = sum(
            attribute.name == "group" and attribute.i > 1
            for node in nodes
            for attribute in node.attribute
        )
        kinds = {node.op_type for node in nodes}
        # The images' mean and scale are all that is multiplied and subtracted.
        assert sum(node.op_type in ("Mul", "Sub") for node in nodes) == 2
        assert {"Conv", "Resize"} <= kinds
        assert "MatMul" not in kinds
    assert found == depthwise_layers(predictor) > 16


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_preprocessing_outside_and_argmax_inside(made, tmp_path, format):
    predictor = made("bgr")
    options = ExportOptions(size=(33, 49), batch=2, preprocessing=False)
    export(predictor, tmp_path / "network", format, options)
    exported = load_exported(tmp_path / "network", threads=1)
    metadata = exported.metadata
    assert metadata.class_names == NAMES
    assert metadata.palette == PALETTE
    assert metadata.input["shape"] == [2, 33, 49, 3]
    assert metadata.input["dtype"] == "float32"
    assert metadata.output["name"] == "class_map"
    with pytest.raises(DeepLabError, match=r"N=3 images, but this file takes only N=2"):
        exported(noise(3, 33, 49))
    images = noise(2, 33, 49)
    found = exported(images)
    assert found.dtype == np.int32
    assert np.mean(found == expected_logits(predictor, images).argmax(-1)) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_windows_of_the_gate_of_lite_reduced_aspp(tmp_path, format):
    """They have strides, so that several of them fit only into maps that are much larger."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    architecture, overrides = NETWORKS["lr_aspp"]
    predictor = small_predictor(architecture, **overrides | CROP)
    export(predictor, tmp_path / "network", format, LOGITS)
    exported = load_exported(tmp_path / "network", threads=1)
    for size in [(33, 65), (33, 257), (289, 321)]:
        images = noise(1, *size)
        assert_same(exported(images), expected_logits(predictor, images))


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_sizes_that_do_not_suit_are_refused(made, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    export(made("crop"), tmp_path / "network", format, LOGITS)
    exported = load_exported(tmp_path / "network")
    given = {"step": 16, "plus": 1, "largest": None, "fill": [127, 127, 127]}
    assert exported.metadata.sizes == given
    for size, nearest in [((80, 97), "65x97 or 81x97"), ((97, 8), "97x17")]:
        with pytest.raises(DeepLabError, match=nearest):
            exported(noise(1, *size))
        # The file itself refuses them, too.
        with pytest.raises(Exception, match=r"polymorphic shapes|multiple_of_16_plus_1"):
            exported.run(noise(1, *size))


def test_fixed_sizes_refuse_all_others(made, tmp_path):
    export(made("crop"), tmp_path / "network", "stablehlo", ExportOptions(size=(33, 49)))
    exported = load_exported(tmp_path / "network")
    with pytest.raises(DeepLabError, match=r"49x33.*33x49"):
        exported(noise(1, 49, 33))
    for images in (noise(1, 33, 49).astype(np.float32), noise(33, 49), noise(1, 33, 49)[..., :2]):
        with pytest.raises(DeepLabError, match=r"uint8 and shape \[N, H, W, 3\]"):
            exported(images)


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
@pytest.mark.parametrize("name", CASES)
def test_fixed_sizes_at_which_maps_do_not_align(made, tmp_path, name, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    predictor, images = made(name), noise(1, 98, 143)
    export(predictor, tmp_path / "network", format, ExportOptions(size=(98, 143), argmax=False))
    found = load_exported(tmp_path / "network", threads=1)(images)
    assert_same(found, expected_logits(predictor, images))


def test_files_that_are_limited_to_a_size(made, tmp_path):
    """As exported by earlier versions from networks with an image pooling of their crop."""
    export(made("v3"), tmp_path / "network", "stablehlo", LOGITS)
    exported = load_exported(tmp_path / "network")
    exported.metadata.sizes["largest"] = [65, 97]
    assert exported(noise(1, 65, 97)).shape == (1, 65, 97, 4)
    with pytest.raises(DeepLabError, match="at most 65x97"):
        exported(noise(1, 81, 97))


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_unsupported_open_sizes_are_refused_and_nothing_is_written(tmp_path, format):
    """What 0.7 of a size is depends on the rounding of floats."""
    predictor = small_predictor("deeplab_v2", backbone="resnet_18", multi_scale=(1, 0.7))
    with pytest.raises(DeepLabError, match="size, as in --size=513x513"):
        export(predictor, tmp_path / "network", format, LOGITS)
    assert not list(tmp_path.iterdir())


class SilentWriter:
    """Has all methods of a writer, and writes nothing."""

    def __getattr__(self, name):
        assert hasattr(Writer, name)
        return lambda *arguments: name


# Every family of backbones, and every head.
PAIRS = [(name, BACKBONES[name].head) for name in one_of_each_family(BACKBONES)]
PAIRS += [("resnet_18", head) for head in HEADS if head != BACKBONES["resnet_18"].head]


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "head"), PAIRS)
def test_writers_support_every_operation_of_the_family(backbone, head):
    predictor = small_predictor("deeplab_v3", backbone=backbone, head=head)
    for size in ((65, 97), None) if head != "spp" else ((65, 97),):
        program = make_program(predictor, ExportOptions(size=size))
        traced = jax.make_jaxpr(program.function)(input_specification(program))
        assert translate(traced, "image", SilentWriter()) == "argmax"


@pytest.mark.slow
def test_pyramid_pooling_of_open_sizes(tmp_path):
    """Edges of its bins depend on the map's size."""
    predictor = small_predictor("deeplab_v3", **MOBILE | {"output_stride": 8}, head="spp")
    export(predictor, tmp_path / "network", "stablehlo", LOGITS)
    exported = load_exported(tmp_path / "network")
    for size in [(65, 65), (49, 137), (129, 57)]:
        images = noise(1, *size)
        assert_same(exported(images), expected_logits(predictor, images))
    with pytest.raises(DeepLabError, match="--format=stablehlo"):
        export(predictor, tmp_path / "other", "onnx", LOGITS)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", slow_unless(lambda name: name == "v3", ["v3", "crop", "lr_aspp"]))
def test_weights_and_maps_in_float16(made, tmp_path, name):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    predictor = made(name)
    sizes = []
    for dtype in ("float32", "float16"):
        options = ExportOptions(argmax=False, dtype=dtype)
        export(predictor, tmp_path / dtype, "onnx", options)
        sizes.append((tmp_path / dtype).stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
    half = onnx.TensorProto.FLOAT16
    arrays = onnx.load(tmp_path / "float16").graph.initializer
    assert all(array.data_type == half for array in arrays if len(array.dims) == 4)
    exported = load_exported(tmp_path / "float16", threads=1)
    assert exported.metadata.dtype == "float16"
    images = noise(2, 65, 97)
    found, expected = exported(images), expected_logits(predictor, images)
    assert found.dtype == np.float32
    # Random weights amplify the rounding of some pixels.
    assert np.abs(found - expected).mean() < 0.01 * np.abs(expected).max()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_float16_is_refused_where_it_cannot_be_kept(made, tmp_path):
    options = ExportOptions(dtype="float16")
    with pytest.raises(DeepLabError, match="float16 is supported only by the formats onnx"):
        export(made("v3"), tmp_path / "network", "stablehlo", options)
    with pytest.raises(DeepLabError, match="legal: float32, float16"):
        ExportOptions(dtype="float8")
    predictor = small_predictor("deeplab_v3", **MOBILE)
    kernel = predictor.variables["params"]["classifier"]["kernel"]
    predictor.variables["params"]["classifier"]["kernel"] = 1e6 + 0 * kernel
    pytest.importorskip("onnx")
    with pytest.raises(DeepLabError, match="exceeds 65504"):
        export(predictor, tmp_path / "network", "onnx", options)
    assert not list(tmp_path.iterdir())


def test_mistakes(made, tmp_path):
    with pytest.raises(DeepLabError, match="onnx"):
        export(made("v3"), tmp_path / "network", "onxx")
    with pytest.raises(DeepLabError, match="at least 1"):
        ExportOptions(batch=0)
    (tmp_path / "text").write_text("no network")
    with pytest.raises(DeepLabError, match="not a StableHLO, ONNX or TFLite"):
        load_exported(tmp_path / "text")
    with pytest.raises(DeepLabError, match="no such file"):
        load_exported(tmp_path / "missing")
    (tmp_path / "network.mlpackage").mkdir()
    with pytest.raises(DeepLabError, match="is a directory, but not an exported web page"):
        load_exported(tmp_path / "network.mlpackage")


def test_files_run_on_the_cores_that_are_available_to_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr("deeplab_jax.export.runtimes.cores", lambda: 3)
    monkeypatch.setattr("deeplab_jax.export.runtimes._load_onnx", lambda path, threads: threads)
    (tmp_path / "network.onnx").write_bytes(b"content of a file")
    assert load_exported(tmp_path / "network.onnx") == 3
    assert load_exported(tmp_path / "network.onnx", threads=2) == 2


def test_a_damaged_stablehlo_file_is_refused(tmp_path):
    path = tmp_path / "network.stablehlo"
    content = np.random.default_rng(0).bytes(1000).hex().encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("network.stablehlo", content)
    damaged = bytearray(path.read_bytes())
    # The compressed data follow a header of 30 bytes and the name.
    damaged[60:100] = bytes(40)
    path.write_bytes(damaged)
    with pytest.raises(DeepLabError, match="is not a StableHLO file that deeplab-jax export wrote"):
        load_exported(path)


@pytest.mark.parametrize("content", [b"", bytes(1000), bytes(range(256)) * 40])
def test_a_damaged_tflite_file_is_refused(tmp_path, content):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "network.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + content)
    with pytest.raises(DeepLabError, match=r"network\.tflite cannot be run as a TFLite file"):
        load_exported(path)


def test_networks_of_several_scales_suit_fewer_sizes(made):
    """Every scale of the image is to be k · output stride + 1."""
    assert make_program(made("msc"), LOGITS).step == (32, 1)
    assert make_program(made("v2"), LOGITS).step == (8, 1)


def test_the_own_size_suits_every_scale(made):
    """The size that a network is made for may suit scale 1 alone, as in older models."""
    program = make_program(made("msc").with_inference_size((361, 97)), LOGITS)
    assert program.own_size == (385, 97)
    assert cases(program)[0] == ((385, 97), 1)
    fixed = make_program(made("msc"), ExportOptions(size=(50, 60)))
    assert fixed.own_size == (50, 60)
