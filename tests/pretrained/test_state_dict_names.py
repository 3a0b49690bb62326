"""Names of a network's arrays without what wrappers put into them."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.readers import read_weights

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
NAMES = ["backbone.conv1.weight", "backbone.bn1.bias", "classifier.4.weight"]


def read(names, folder, **others):
    arrays = {name: WEIGHT + number for number, name in enumerate(names)}
    save_file(arrays | others, folder / "network.safetensors", metadata={"format": "pt"})
    return read_weights(folder / "network.safetensors")


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "net.",
        "model._orig_mod.",
        "_orig_mod.model.module.",
        "module.model.",
        "net.module._orig_mod.",
        "_fsdp_wrapped_module._orig_mod.",
    ],
)
def test_a_prefix_of_all_names_is_removed(prefix, tmp_path):
    weights = read([prefix + name for name in NAMES], tmp_path)
    assert set(weights.arrays) == set(NAMES)
    for number, name in enumerate(NAMES):
        np.testing.assert_array_equal(weights.arrays[name], WEIGHT + number)


@pytest.mark.parametrize("part", ["_orig_mod", "module", "_checkpoint_wrapped_module"])
def test_a_prefix_around_one_part_is_removed(part, tmp_path):
    wrapped = [name.replace("backbone.", f"backbone.{part}.") for name in NAMES]
    assert set(read(wrapped, tmp_path).arrays) == set(NAMES)
    wrapped = [name.replace("backbone.", f"{part}.backbone.") for name in NAMES]
    assert set(read(wrapped, tmp_path).arrays) == set(NAMES)


@pytest.mark.parametrize("wrapper", ["module", "model", "_orig_mod"])
def test_training_state_is_left_out(wrapper, tmp_path):
    """A counter of averaged weights, and the loss's weights of classes, under any name."""
    ones = np.ones(3, np.float32)
    beside = {"n_averaged": np.array(7), "criterion.weight": ones, "focal.class_weights": ones}
    weights = read([f"{wrapper}.{name}" for name in NAMES], tmp_path, **beside)
    assert set(weights.arrays) == {*NAMES, "criterion.weight", "focal.class_weights"}
    assert set(weights.ignored) == {"n_averaged"}


def test_a_prefix_of_some_names_is_kept(tmp_path):
    names = ["model.a", "head.a"]
    assert set(read(names, tmp_path).arrays) == set(names)


def test_a_prefix_ends_at_a_separator(tmp_path):
    names = ["module_1.a", "pixel_level_module.b", "my_orig_mod.c"]
    assert set(read(names, tmp_path).arrays) == set(names)


def test_two_networks_in_one_file_are_refused(tmp_path):
    with pytest.raises(DeepLabError, match=r"backbone\.conv1\.weight") as refused:
        read([NAMES[0], f"_orig_mod.{NAMES[0]}"], tmp_path)
    assert f"_orig_mod.{NAMES[0]}" in str(refused.value)
