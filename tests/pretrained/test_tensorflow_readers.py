"""TensorFlow's checkpoints and frozen graphs, written by TensorFlow itself."""

import os
import warnings

import numpy as np
import official_variables
import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained import convert
from deeplab_jax.pretrained.readers import read_weights, weights_file
from deeplab_jax.pretrained.readers.tensorflow_checkpoint import choose_variables

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tensorflow = pytest.importorskip("tensorflow", reason="it writes the files read here")
tf = tensorflow.compat.v1

AVERAGE = "ExponentialMovingAverage"
QUICK = "deeplab_mobilenet_v2_dm05_voc"
# Hundreds of megabytes each.
LARGE = [name for name in official_variables.LISTS if name != QUICK]


def random_arrays(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def save(prefix, arrays):
    """Writes a checkpoint in today's format."""
    tensorflow.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    return prefix


def trained(arrays):
    """What training leaves beside the variables: optimiser, step, averages of some."""
    kept = dict(arrays)
    for number, (name, value) in enumerate(arrays.items()):
        if "moving_" not in name and number % 3 == 0:
            kept[f"{name}/Momentum"] = np.zeros_like(value)
        if number % 5 == 0:
            kept[f"{name}/{AVERAGE}"] = value + 1
    return kept | {"global_step": np.int64(30000)}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The variables of a small DeepLab, and the prefix of a checkpoint after training."""
    arrays = random_arrays(official_variables.read(QUICK))
    return arrays, save(tmp_path_factory.mktemp("small") / "model.ckpt-30000", trained(arrays))


@pytest.mark.parametrize("prefer_averages", [True, False])
def test_every_variable_lands_unpermuted(small, prefer_averages):
    arrays, prefix = small
    conversion = convert(prefix, prefer_averages=prefer_averages)
    params, statistics = (conversion.variables[part] for part in ("params", "batch_stats"))
    number = {name: index for index, name in enumerate(arrays)}

    def expected(name):
        return arrays[name] + (prefer_averages and number[name] % 5 == 0)

    unit = params["backbone"]["layer_5"]
    scope = "MobilenetV2/expanded_conv_3"
    depthwise = expected(f"{scope}/depthwise/depthwise_weights")
    np.testing.assert_array_equal(unit["depthwise"]["kernel"][:, :, 0, :], depthwise[..., 0])
    np.testing.assert_array_equal(unit["expand"]["kernel"], expected(f"{scope}/expand/weights"))
    norm = f"{scope}/project/BatchNorm"
    np.testing.assert_array_equal(unit["project"]["norm"]["scale"], expected(f"{norm}/gamma"))
    np.testing.assert_array_equal(
        statistics["backbone"]["layer_5"]["project"]["norm"]["var"],
        expected(f"{norm}/moving_variance"),
    )
    np.testing.assert_array_equal(params["classifier"]["bias"], expected("logits/semantic/biases"))


@pytest.mark.parametrize("prefer_averages", [True, False])
def test_everything_is_used_once_or_left_for_a_reason(small, prefer_averages):
    arrays, prefix = small
    found = convert(prefix, prefer_averages=prefer_averages).assignment
    sources = list(found.sources.values())
    assert len(sources) == len(set(sources)) == len(arrays)
    everything = set(trained(arrays))
    assert everything == set(sources) | set(found.unused)
    assert not set(sources) & set(found.unused)
    averaged = {name for name in everything if name.endswith(AVERAGE)}
    assert averaged.issubset(sources if prefer_averages else found.unused)
    assert "no part of the network uses it" not in found.unused.values()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_released_network_loads(name, tmp_path):
    arrays = random_arrays(official_variables.read(name))
    found = convert(save(tmp_path / "model.ckpt", trained(arrays))).assignment
    assert len(set(found.sources.values())) == len(arrays)
    assert set(trained(arrays)) == set(found.sources.values()) | set(found.unused)
    assert "no part of the network uses it" not in found.unused.values()


@pytest.mark.parametrize("form", ["", ".index", ".data-00000-of-00001", "directory"])
def test_a_checkpoint_is_found_by_each_of_its_names(small, form):
    arrays, prefix = small
    path = prefix.parent if form == "directory" else prefix.with_name(prefix.name + form)
    assert weights_file(path).name == "model.ckpt-30000.data-00000-of-00001"
    found = read_weights(path, prefer_averages=False)
    assert found.arrays.keys() == arrays.keys()


def test_older_single_file(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("vgg_16/fc8/weights", (1, 1, 2, 3))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        saver.save(session, str(tmp_path / "vgg_16.ckpt"), write_meta_graph=False)
        expected = session.run(variable)
    found = read_weights(tmp_path / "vgg_16.ckpt")
    np.testing.assert_array_equal(found.arrays["vgg_16/fc8/weights"], expected)


def test_last_of_a_training_run(tmp_path):
    for step in (1, 2):
        save(tmp_path / f"model.ckpt-{step}", {"v": np.full(3, step, np.float32)})
    with pytest.raises(DeepLabError, match=r"several weights files: .*model.ckpt-1, model.ckpt-2"):
        read_weights(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-1"\n')
    np.testing.assert_array_equal(read_weights(tmp_path).arrays["v"], np.ones(3))


def test_missing_and_damaged_files(tmp_path):
    prefix = save(tmp_path / "model.ckpt", {"v": np.arange(1000, dtype=np.float32)})
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:100])
    with pytest.raises(DeepLabError, match="damaged"):
        read_weights(prefix)
    data.write_bytes(b"\0" * len(whole))
    with pytest.raises(DeepLabError, match="damaged"):
        read_weights(prefix)
    data.unlink()
    with pytest.raises(DeepLabError, match=r"0 of 1 files model.ckpt.data-…"):
        read_weights(prefix)
    data.write_bytes(whole)
    (tmp_path / "model.ckpt.index").write_bytes(b"nothing of the kind")
    with pytest.raises(DeepLabError, match="damaged"):
        read_weights(prefix)
    (tmp_path / "model.ckpt.index").unlink()
    with pytest.raises(DeepLabError, match=r"model.ckpt.index is missing"):
        read_weights(data)


@pytest.mark.parametrize("prefer_averages", [True, False])
def test_an_average_alone_is_taken(prefer_averages):
    stored, _ = choose_variables(["a/weights/ExponentialMovingAverage"], prefer_averages)
    assert stored == {"a/weights": "a/weights/ExponentialMovingAverage"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aspp0/weights/Momentum", "optimizer"),
        ("aspp0/BatchNorm/beta/Adam_1", "optimizer"),
        ("aspp0/weights/ExponentialMovingAverage/Momentum", "optimizer"),
        ("beta1_power", "optimizer"),
        ("global_step", "training steps"),
        ("aspp0/BatchNorm/moving_mean/local_step", "only training requires it"),
        ("aspp0/BatchNorm/renorm_mean_weight", "only training requires it"),
    ],
)
def test_training_state_is_left_out(name, reason):
    stored, ignored = choose_variables([name, "aspp0/BatchNorm/moving_mean"], prefer_averages=True)
    assert list(stored) == ["aspp0/BatchNorm/moving_mean"]
    assert reason in ignored[name]
