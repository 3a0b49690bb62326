"""Frozen graphs, written and executed by TensorFlow."""

import os
import warnings

import jax
import numpy as np
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert
from deeplab_jax.pretrained.readers import read_weights
from deeplab_jax.pretrained.readers.frozen_graph import Nodes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tensorflow = pytest.importorskip("tensorflow", reason="it writes the files read here")

from tensorflow_graphs import deeplab_graph, small_variables

tf = tensorflow.compat.v1


def write(graph, path):
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="module")
def arrays():
    return small_variables()


@pytest.mark.parametrize("folded", [False, True])
def test_same_logits_as_the_graph_itself(arrays, folded, tmp_path):
    graph = deeplab_graph(arrays, folded)
    conversion = convert(write(graph, tmp_path / "frozen_inference_graph.pb"))
    image = np.random.default_rng(0).integers(0, 256, (1, 65, 65, 3), np.uint8)
    with tf.Session(graph=graph) as session:
        expected = session.run("Logits:0", {"ImageTensor:0": image})
    model = conversion.description.create_model()
    found = jax.jit(model.apply)(conversion.variables, image)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert bool(conversion.assignment.folded) == folded
    assert not conversion.assignment.unused


def test_facts(arrays, tmp_path):
    path = write(deeplab_graph(arrays), tmp_path / "graph.pb")
    description = convert(path).description
    assert description.inference_size == (65, 65)
    told = description.overrides
    assert (told["output_stride"], told["depth_multiplier"]) == (16, 0.25)
    assert (told["image_pooling"], told["pooling_crop"]) == ("crop", (65, 65))
    facts = read_weights(path).graph
    assert facts.align_corners is True
    assert facts.rates["MobilenetV2/expanded_conv_13/depthwise"] == (1, 1)
    assert facts.rates["MobilenetV2/expanded_conv_14/depthwise"] == (2, 2)
    assert facts.strides["MobilenetV2/expanded_conv_3/depthwise"] == 8
    assert facts.strides["image_pooling"] == 16


def test_rate_as_an_attribute_and_fixed_size(tmp_path):
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [1, 33, 65, 3])
        kernel = tf.constant(np.ones((3, 3, 3, 4), np.float32), name="aspp1/weights")
        tf.nn.conv2d(image, kernel, 1, "SAME", dilations=[1, 6, 12, 1], name="aspp1/Conv2D")
    facts = read_weights(write(graph, tmp_path / "graph.pb")).graph
    assert facts.rates == {"aspp1": (6, 12)}
    assert facts.image_size == (33, 65)
    assert (facts.pooling_window, facts.align_corners) == (None, None)


def test_weights_that_are_computed_are_refused(tmp_path):
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.float32, [1, None, None, 3])
        kernel = tf.get_variable("aspp0/weights", (1, 1, 3, 4))
        tf.nn.conv2d(image, kernel, 1, "SAME", name="aspp0/Conv2D")
    with pytest.raises(DeepLabError, match="weights of aspp0/Conv2D are computed, not stored"):
        read_weights(write(graph, tmp_path / "graph.pb"))


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"no graph at all", "damaged"), (b"", "contains no convolution")]
)
def test_other_files_are_refused(content, complaint, tmp_path):
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    with pytest.raises(DeepLabError, match=complaint):
        read_weights(path)


def test_truncated_graph_is_refused(arrays, tmp_path):
    path = write(deeplab_graph(arrays), tmp_path / "graph.pb")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DeepLabError, match="damaged"):
        read_weights(path)


def test_loops_come_to_an_end():
    def node(name, op, *inputs):
        return tf.NodeDef(name=name, op=op, input=inputs)

    ring = [node("a", "Identity", "b"), node("b", "Identity", "a"), node("c", "Conv2D", "a", "b")]
    nodes = Nodes(ring)
    assert nodes.constant("a:0") is None or nodes.constant("a:0").op != "Const"
    assert nodes.next_of(nodes["a"], ("Relu",), far=True) is None
    assert nodes.strides() == {}
