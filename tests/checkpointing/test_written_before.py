"""What was written before format version 2 loads with the defaults of its time."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from deeplab_jax import config as configs
from deeplab_jax.checkpointing import read_description, read_model, write_description
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from deeplab_jax.training.checkpoints import claim, format_version

BEFORE = pathlib.Path(__file__).parent / "written_before"
NETWORKS = ("v1", "v2", "torchvision")
MODELS = {name: f"{name}/model" for name in NETWORKS} | {"v2/workdir": "v2/workdir"}
# Rates then and now at output stride 16.
RATES = {
    "v1": ((12,), (6,)),
    "v2": ((6, 12, 18, 24), (3, 6, 9, 12)),
    "torchvision": ((12, 24, 36), (6, 12, 18)),
}


def described(name):
    return json.loads((BEFORE / name / "architecture.json").read_text())


def given(name):
    """Returns the name and the keywords that the file holds."""
    values = json.loads((BEFORE / name / "model" / "model.json").read_text())
    return values["architecture"], values["overrides"]


@pytest.mark.parametrize("name", MODELS)
def test_models_give_equal_logits(name):
    stored = read_model(BEFORE / MODELS[name])
    with np.load(BEFORE / "logits.npz") as written:
        image, expected = written["image"], written[name]
    found = np.asarray(jax.jit(stored.model.apply)(stored.variables, image))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_rates_are_those_of_then_although_defaults_changed(name):
    architecture, overrides = given(name)
    then, now = RATES[name]
    assert "atrous_rates" not in overrides
    made = read_description(BEFORE / name / "model").create_model().architecture
    assert made.atrous_rates == then == tuple(described(name)["atrous_rates"])
    read = {"output_stride", "backbone", "depth_multiplier", "num_classes"}
    fresh = create_model(architecture, **{name: overrides[name] for name in read})
    assert fresh.architecture.atrous_rates == now


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_the_one_of_then_but_for_what_it_did_not_read(name):
    made = read_description(BEFORE / name / "model").create_model().architecture
    then = json.loads(json.dumps(described(name)))
    differ = {
        key for key, value in json.loads(json.dumps(made.describe())).items() if value != then[key]
    }
    ignored = {
        "v1": {"aspp_channels"},
        "v2": {"separable", "dropout_rate"},
        "torchvision": {"low_level_channels"},
    }
    assert differ == ignored[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_written_again_they_keep_their_network(name, tmp_path):
    before = read_description(BEFORE / name / "model")
    write_description(tmp_path, before)
    values = json.loads((tmp_path / "model.json").read_text())
    assert values["format_version"] == 2
    assert values["overrides"].keys() == described(name).keys()
    assert read_description(tmp_path) == before


@pytest.mark.parametrize("name", NETWORKS)
def test_a_workdir_goes_on_with_the_same_config_and_refuses_another(name, tmp_path):
    shutil.copy(BEFORE / name / "config.json", tmp_path)
    config = configs.from_json((tmp_path / "config.json").read_text())
    assert config.model.atrous_rates is None
    then, now = RATES[name]
    # Twice: what the first start writes must not turn the second away.
    for _ in range(2):
        assert format_version(tmp_path) == 1
        assert claim(tmp_path, config).model.atrous_rates == then
    with config.model.ignore_type():
        config.model.atrous_rates = then
    claim(tmp_path, config)
    with config.model.ignore_type():
        config.model.atrous_rates = now
    with pytest.raises(DeepLabError, match=r"model\.atrous_rates"):
        claim(tmp_path, config)


def test_a_new_workdir_holds_every_value_and_the_version(tmp_path):
    config = configs.default()
    config.model.architecture, config.model.backbone = "deeplab_v2", "mobilenet_v2"
    config.model.output_stride = 16
    claim(tmp_path, config)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["format_version"] == 2
    network = create_model("deeplab_v2", backbone="mobilenet_v2", output_stride=16).architecture
    expected = json.loads(json.dumps(network.describe()))
    assert values["model"]["atrous_rates"] == [3, 6, 9, 12]
    assert {name: expected[name] for name in values["model"].keys() & expected.keys()} == {
        name: values["model"][name] for name in values["model"].keys() & expected.keys()
    }
    # Unset, or given as what unset means: one run.
    with config.model.ignore_type():
        config.model.atrous_rates = (3, 6, 9, 12)
    claim(tmp_path, config)


@pytest.mark.parametrize("version", [3, 0, "2", None, True])
def test_other_versions_are_refused(version, tmp_path):
    values = json.loads((BEFORE / "v2/model/model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(values | {"format_version": version}))
    with pytest.raises(DeepLabError, match=r"model\.json.*format_version"):
        read_description(tmp_path)
    values = json.loads((BEFORE / "v2/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"format_version": version}))
    with pytest.raises(DeepLabError, match=r"config\.json.*format_version"):
        claim(tmp_path, configs.default())
