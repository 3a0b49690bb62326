"""TFLite files that nobody here has seen: made by TensorFlow's converter from a small DeepLab."""

import os
import warnings

import jax
import numpy as np
import pytest

from deeplab_jax.pretrained import convert
from deeplab_jax.pretrained.readers import read_weights

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tensorflow = pytest.importorskip("tensorflow", reason="it makes the files read here")
    interpreters = pytest.importorskip("ai_edge_litert.interpreter", reason="it executes them")

from tensorflow_graphs import SIZE, Graph, deeplab_graph, small_variables

# The normalised image in the graph: what Google's files take.
IMAGE = "sub_2"
INTEGERS = {"optimizations": [tensorflow.lite.Optimize.DEFAULT]}


@pytest.fixture(scope="module")
def arrays():
    return small_variables()


@pytest.fixture(scope="module")
def frozen(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "graph.pb"
    path.write_bytes(deeplab_graph(arrays).as_graph_def().SerializeToString())
    return path


def write(frozen, path, **options):
    """Converts the frozen graph; options are attributes of TensorFlow's converter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = tensorflow.compat.v1.lite.TFLiteConverter.from_frozen_graph(
            str(frozen), [IMAGE], ["Logits"], input_shapes={IMAGE: [1, SIZE, SIZE, 3]}
        )
        for name, value in options.items():
            setattr(converter, name, value)
        path.write_bytes(converter.convert())
    return path


def half_precision():
    target = tensorflow.lite.TargetSpec()
    target.supported_types = [tensorflow.float16]
    return INTEGERS | {"target_spec": target}


def calibrated():
    random = np.random.default_rng(0)

    def samples():
        for _ in range(4):
            yield [random.uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)]

    return INTEGERS | {"representative_dataset": samples}


@pytest.mark.parametrize("precision", ["float", "half"])
def test_same_logits_as_the_interpreter(frozen, tmp_path, precision):
    options = half_precision() if precision == "half" else {}
    path = write(frozen, tmp_path / "made.tflite", **options)
    conversion = convert(path)
    assert not conversion.assignment.unused
    image = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    interpreter = interpreters.Interpreter(str(path))
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(given["index"], image.astype(np.float32) * (2 / 255) - 1)
    interpreter.invoke()
    expected = interpreter.get_tensor(result["index"])
    model = conversion.description.create_model()
    found = jax.jit(model.apply)(conversion.variables, image)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("options", [INTEGERS, calibrated()], ids=["dynamic", "calibrated"])
def test_integers_are_within_half_a_step(arrays, frozen, tmp_path, options):
    """One scale an output channel, of 127 steps to either side of zero."""
    found = read_weights(write(frozen, tmp_path / "integers.tflite", **options)).arrays
    folding = Graph(arrays, folded=True)
    scopes = [name.rpartition("/")[0] for name in arrays if name.endswith("/gamma")]
    for scope in (name.rpartition("/")[0] for name in scopes):
        depthwise = f"{scope}/depthwise_weights" in arrays
        name = f"{scope}/{'depthwise_weights' if depthwise else 'weights'}"
        scale = folding._affine(scope)[0]
        kernel = arrays[name] * (scale[:, None] if depthwise else scale)
        axes = (0, 1, 3) if depthwise else (0, 1, 2)
        steps = np.abs(kernel).max(axes, keepdims=True) / 127
        assert np.all(np.abs(found[name] - kernel) <= 0.51 * steps + 1e-7), name


def test_the_network_is_read_from_the_file(frozen, tmp_path):
    description = convert(write(frozen, tmp_path / "made.tflite")).description
    told = description.overrides
    assert (told["output_stride"], told["depth_multiplier"], told["num_classes"]) == (16, 0.25, 5)
    assert description.inference_size == told["pooling_crop"] == (SIZE, SIZE)
