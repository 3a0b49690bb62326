import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from reporters import RecordingReporter
from stand_ins import write_workdir

from deeplab_jax import ops
from deeplab_jax.checkpointing import (
    CLASSIFICATION,
    ModelDescription,
    read_description,
    read_variables,
    write_description,
    write_model,
)
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from deeplab_jax.pretrained import convert
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.initialization import initialize_from, warn_of_conventions


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("runs") / "three", ["sky", "tree", "road"])


def fresh_variables(workdir, **changes):
    """Returns variables of the workdir's model with other keywords, each array filled with 7."""
    description = read_description(workdir)
    description.overrides.update(changes)
    model = description.create_model()
    image = jax.ShapeDtypeStruct((1, 33, 33, model.architecture.in_channels), jnp.uint8)
    with ops.dispatching(export=True):
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), shapes)


def starting_from(workdir, parts="all", **changes):
    listener = RecordingReporter()
    start = initialize_from(fresh_variables(workdir, **changes), workdir, listener, parts)
    return traverse_util.flatten_dict(start.variables, sep="/"), listener.messages


def test_the_same_network_takes_everything(workdir):
    found, messages = starting_from(workdir)
    expected = traverse_util.flatten_dict(read_variables(workdir), sep="/")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    assert messages == []


def test_another_number_of_classes_starts_with_a_fresh_classifier(workdir):
    found, messages = starting_from(workdir, num_classes=5)
    expected = traverse_util.flatten_dict(read_variables(workdir), sep="/")
    afresh = {path for path in found if np.all(found[path] == 7)}
    assert afresh == {"params/classifier/kernel", "params/classifier/bias"}
    assert all(np.array_equal(found[path], expected[path]) for path in expected.keys() - afresh)
    (bias,) = (message for message in messages if "bias" in message)
    assert bias == (
        "params/classifier/bias of shape [5] is initialized randomly, because it is of shape [3] "
        f"in {workdir}"
    )


@pytest.mark.parametrize(
    "changes", [{"aspp_channels": 8}, {"head": "aspp"}, {"depth_multiplier": 0.25}]
)
def test_another_network_is_refused(workdir, changes):
    message = re.escape(f"training.init_from={workdir} is a different network")
    with pytest.raises(DeepLabError, match=message):
        starting_from(workdir, **changes)


FIVE_BANDS = {
    "in_channels": 5,
    "image_dtype": "uint16",
    "preprocessing": "mean_std",
    "pixel_mean": (1.0,) * 5,
    "pixel_std": (2.0,) * 5,
}


def described(workdir, **changes):
    """Returns the description of the workdir's model with other keywords."""
    description = read_description(workdir)
    description.overrides.update(changes)
    return description


def test_the_flags_for_another_network_set_no_field_that_the_data_determine(workdir):
    changes = FIVE_BANDS | {"aspp_channels": 8}
    architecture = described(workdir, **changes).create_model().architecture
    fresh = fresh_variables(workdir, **changes)
    flags = r"of that network \(--config\.model\.aspp_channels=16\), or training\.init_scope"
    with pytest.raises(DeepLabError, match=flags):
        initialize_from(fresh, workdir, Reporter(), "all", architecture)


def test_a_model_for_other_bands_does_not_initialize_one_for_rgb(workdir, tmp_path):
    description, variables = (make(workdir, **FIVE_BANDS) for make in (described, fresh_variables))
    write_model(tmp_path / "five", description, variables)
    architecture = described(workdir).create_model().architecture
    with pytest.raises(DeepLabError, match="takes 5 bands, but the data has 3; give a model for"):
        initialize_from(
            fresh_variables(workdir), tmp_path / "five", Reporter(), "all", architecture
        )


@pytest.mark.parametrize("changes", [{"aspp_channels": 8}, {"head": "aspp"}, {"num_classes": 5}])
def test_the_backbone_alone(workdir, changes):
    found, messages = starting_from(workdir, parts="backbone", **changes)
    expected = traverse_util.flatten_dict(read_variables(workdir), sep="/")
    for path, array in found.items():
        in_backbone = path.split("/")[1] == "backbone"
        assert np.array_equal(array, expected[path]) if in_backbone else np.all(array == 7)
    (message,) = messages
    assert "parts with random initialization" in message
    assert "classifier" in message
    assert "backbone" not in message


def test_matching_variables_are_taken(workdir):
    found, messages = starting_from(workdir, parts="matching", decoder="v3plus", num_classes=3)
    expected = traverse_util.flatten_dict(read_variables(workdir), sep="/")
    taken = {
        path for path in found if path in expected and np.array_equal(found[path], expected[path])
    }
    assert {path.split("/")[1] for path in taken} == {"backbone", "pooling"}
    assert messages == [
        f"loaded {len(taken)} arrays from {workdir}; "
        "parts with random initialization: decoder, classifier"
    ]


@pytest.mark.parametrize(
    ("parts", "changes", "message"),
    [
        ("backbone", {"depth_multiplier": 0.25}, "is a different network"),
        (
            "matching",
            {"depth_multiplier": 0.25, "aspp_channels": 8, "num_classes": 5},
            "no variable of",
        ),
        ("backbones", {}, "did you mean 'backbone'"),
    ],
)
def test_incompatible_initial_weights_are_refused(workdir, parts, changes, message):
    with pytest.raises(DeepLabError, match=message):
        starting_from(workdir, parts=parts, **changes)


def test_a_directory_without_a_model_is_refused(tmp_path, workdir):
    with pytest.raises(DeepLabError, match="is not a model"):
        initialize_from(fresh_variables(workdir), tmp_path, Reporter())


@pytest.mark.parametrize("parts", ["all", "backbone", "matching"])
def test_a_quantized_model_is_refused(tmp_path, workdir, parts):
    description = read_description(workdir)
    description.overrides["quantization"] = "int8"
    write_description(tmp_path, description)
    with pytest.raises(DeepLabError, match="is a quantized model"):
        initialize_from(fresh_variables(workdir), tmp_path, Reporter(), parts)


def test_folded_batch_normalizations_are_found_in_units_whose_names_contain_slashes(tmp_path):
    path = write_workdir(
        tmp_path / "run", ["sky", "tree"], backbone="timm/regnety_002", depth_multiplier=1.0
    )
    fresh = fresh_variables(path)
    folded = {key[1:-1] for key in traverse_util.flatten_dict(fresh) if key[-1] == "var"}
    assert any("/" in name for key in folded for name in key)
    source = {"folded_batch_norm": sorted(map("/".join, folded))}
    write_description(path, dataclasses.replace(read_description(path), source=source))
    assert initialize_from(fresh, path, Reporter()).folded == folded


def test_a_published_classifier_is_a_backbone(shared, tmp_path):
    conversion = convert(shared / "weights" / "mobilenet_v2_imagenet_224_uint8.tflite")
    write_model(tmp_path / "classifier", conversion.description, conversion.variables)
    model = create_model("deeplab_v3plus", backbone="mobilenet_v2", separable=True, num_classes=3)
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8)
    with ops.dispatching(export=True):
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), shapes)
    start = initialize_from(fresh, tmp_path / "classifier", Reporter(), "backbone")
    published = traverse_util.flatten_dict(conversion.variables)
    for path, array in traverse_util.flatten_dict(start.variables).items():
        expected = published[path] if path[1] == "backbone" else 7
        assert np.all(array == expected), path
    # 1 + 2 + 16 · 3 convolutions up to layer_18, all folded; no layer_19.
    assert len(start.folded) == 51


@pytest.mark.parametrize(
    ("parts", "changes", "named"),
    [
        ("all", {}, []),
        ("all", {"preprocessing": "mean_std", "align_corners": False}, ["preprocessing", "align"]),
        ("backbone", {"align_corners": False}, []),
        ("matching", {"align_corners": False}, ["align_corners=True, but this network has False"]),
    ],
)
def test_other_conventions_are_warned_of(workdir, parts, changes, named):
    description = read_description(workdir)
    description.overrides.update(changes)
    listener = RecordingReporter()
    warn_of_conventions(description.create_model().architecture, workdir, listener, parts)
    assert len(listener.warnings) == len(named)
    for warning, name in zip(listener.warnings, named, strict=True):
        assert name in warning
        assert str(workdir) in warning


@pytest.mark.parametrize(
    ("theirs", "ours", "named"),
    [("slim", "caffe", True), ("torchvision", "torchvision", False), (None, "slim", False)],
)
def test_other_stride_placements_are_reported(tmp_path, theirs, ours, named):
    description = ModelDescription(
        architecture="deeplab_v3",
        overrides={"backbone": "resnet_18", "stride_placement": theirs}
        if theirs
        else {"backbone": "mobilenet_v2"},
        class_names=("a", "b"),
        palette=((0, 0, 0), (1, 1, 1)),
    )
    tmp_path.joinpath("model").mkdir()
    write_description(tmp_path / "model", description)
    network = create_model("deeplab_v3", backbone="resnet_18", stride_placement=ours)
    network = dataclasses.replace(
        network.architecture, preprocessing=description.create_model().architecture.preprocessing
    )
    listener = RecordingReporter()
    warn_of_conventions(network, tmp_path / "model", listener)
    expected = [f"stride_placement={theirs}, but this network has {ours}"] if named else []
    assert len(listener.warnings) == len(expected)
    assert all(text in warning for text, warning in zip(expected, listener.warnings, strict=True))


@pytest.mark.parametrize(
    ("architecture", "parts", "number"),
    [
        ("deeplab_v3plus", "all", 1),
        ("deeplab_v3plus", "backbone", 0),
        ("deeplab_v3", "matching", 0),
    ],
)
def test_another_source_of_low_level_features_is_reported(tmp_path, architecture, parts, number):
    description = ModelDescription(
        architecture="deeplab_v3plus",
        overrides={"backbone": "resnet_18", "low_level_source": "block"},
        class_names=("a", "b"),
        palette=((0, 0, 0), (1, 1, 1)),
    )
    write_description(tmp_path, description)
    network = create_model(architecture, backbone="resnet_18")
    listener = RecordingReporter()
    warn_of_conventions(network.architecture, tmp_path, listener, parts)
    text = "low_level_source=block, but this network has convolution"
    assert [text in warning for warning in listener.warnings] == [True] * number


def test_a_classifier_of_images_has_no_convention_of_resizing(tmp_path):
    description = ModelDescription(
        architecture="image_classifier",
        overrides={"backbone": "mobilenet_v2", "num_classes": 2},
        class_names=("a", "b"),
        palette=((0, 0, 0), (1, 1, 1)),
        task=CLASSIFICATION,
    )
    write_description(tmp_path, description)
    network = create_model("deeplab_v3", backbone="mobilenet_v2", align_corners=False)
    listener = RecordingReporter()
    warn_of_conventions(network.architecture, tmp_path, listener, "matching")
    assert listener.warnings == []
