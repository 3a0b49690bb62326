"""Files before format version 3 load with the defaults and names of the release that wrote them."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from deeplab_jax import config as configs
from deeplab_jax.checkpointing import read_description, read_model, write_description
from deeplab_jax.errors import DeepLabError
from deeplab_jax.formats import RENAMES, with_new_keywords
from deeplab_jax.models import create_model
from deeplab_jax.training.workdir import claim, format_version

BEFORE = pathlib.Path(__file__).parent / "written_before"
NETWORKS = ("v1", "v2", "torchvision")
MODELS = {name: f"{name}/model" for name in NETWORKS} | {"v2/workdir": "v2/workdir"}
# Rates then and now at output stride 16.
RATES = {
    "v1": ((12,), (6,)),
    "v2": ((6, 12, 18, 24), (3, 6, 9, 12)),
    "torchvision": ((12, 24, 36), (6, 12, 18)),
}


# Keywords of later releases.
ADDED = {
    "image_dtype": "uint8",
    "pixel_mean": [],
    "pixel_std": [],
    "rate_start": "next_unit",
    "projection_size": 1,
    "stochastic_depth": 0.0,
    "decoder_dropout": [],
    "pad_first_convolution": True,
    "low_level_source": "convolution",
    "separable_norm": True,
    "refine_encoder": False,
    "last_convolution": False,
    "pad_before_expansion": False,
    "multiple_of_stride": False,
}


def described(name):
    stored = json.loads((BEFORE / name / "architecture.json").read_text())
    return with_new_keywords(stored, 1) | ADDED


def given(name):
    """Returns the name and the keywords that the file stores."""
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
def test_old_models_keep_their_rates(name):
    architecture, overrides = given(name)
    then, now = RATES[name]
    assert "atrous_rates" not in overrides
    made = read_description(BEFORE / name / "model").create_model().architecture
    assert made.atrous_rates == then == tuple(described(name)["atrous_rates"])
    read = {"output_stride", "backbone", "depth_multiplier", "num_classes"}
    fresh = create_model(architecture, **{name: overrides[name] for name in read})
    assert fresh.architecture.atrous_rates == now


@pytest.mark.parametrize("name", NETWORKS)
def test_old_models_keep_their_network_except_unused_keywords(name):
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
    assert values["format_version"] == 3
    assert values["overrides"].keys() == described(name).keys()
    assert read_description(tmp_path) == before


@pytest.mark.parametrize("name", NETWORKS)
def test_a_workdir_resumes_with_the_same_config_only(name, tmp_path):
    shutil.copy(BEFORE / name / "config.json", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
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
    assert values["format_version"] == 3
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


@pytest.mark.parametrize("version", [4, 0, "2", None, True])
def test_other_versions_are_refused(version, tmp_path):
    values = json.loads((BEFORE / "v2/model/model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(values | {"format_version": version}))
    with pytest.raises(DeepLabError, match=r"model\.json.*format_version"):
        read_description(tmp_path)
    values = json.loads((BEFORE / "v2/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"format_version": version}))
    with pytest.raises(DeepLabError, match=r"config\.json.*format_version"):
        claim(tmp_path, configs.default())


# A value of each renamed field as version 2 wrote it, not its default, and the value of today.
RENAMED = {
    "loss.hard_pixel_share": (0.5, 0.5),
    "loss.hard_pixel_step": (7, 7),
    "loss.resolution": ("scores", False),
    "loss.every_scale": (True, True),
    "loss.rows_at_once": (8, 8),
    "model.batch_norm_group": (2, 2),
    "model.scan_units": (True, None),
    "data.duplicate": (["a"], ("a",)),
    "augmentation.max_class_share": (0.75, 0.75),
    "training.rematerialize": ("units", "block"),
    "training.init_parts": ("decimated", "vgg_decimated"),
    "parallel.space": (2, 2),
}
NEW_NAMES = {rename.old: rename.new for rename in RENAMES}


def test_every_renamed_field_of_a_workdir_is_read_under_its_new_name(tmp_path):
    values = json.loads((BEFORE / "v2/config.json").read_text()) | {"format_version": 2}
    values.setdefault("parallel", {})
    for field, (old, _) in RENAMED.items():
        section, _, name = field.partition(".")
        values[section][name] = old
    found = dict(configs.flatten(configs.from_json(json.dumps(values))))
    assert RENAMED.keys() == NEW_NAMES.keys()
    assert {field: found[new] for field, new in NEW_NAMES.items() if new is not None} == {
        field: new for field, (_, new) in RENAMED.items() if NEW_NAMES[field] is not None
    }
    assert not NEW_NAMES.keys() & found.keys()


@pytest.mark.parametrize("old", ["image", "scores"])
def test_both_old_resolutions_of_the_loss_are_read(old):
    values = {"loss": {"resolution": old}, "format_version": 2}
    assert configs.from_json(json.dumps(values)).loss.upsample_logits == (old == "image")


def test_a_renamed_keyword_of_a_model_directory_is_read(tmp_path):
    values = json.loads((BEFORE / "v2/model/model.json").read_text()) | {"format_version": 2}
    network = read_description(BEFORE / "v2/model").create_model().architecture
    keywords = json.loads(json.dumps(network.describe()))
    del keywords["ghost_batch_size"]
    values["overrides"] = keywords | {"batch_norm_group": 2, "scan_units": True}
    (tmp_path / "model.json").write_text(json.dumps(values))
    assert read_description(tmp_path).overrides["ghost_batch_size"] == 2


def test_a_version_2_workdir_resumes_and_is_rewritten_with_current_names(tmp_path):
    config = configs.default()
    claim(tmp_path, config)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text()) | {"format_version": 2}
    for rename in RENAMES:
        section, _, name = rename.old.partition(".")
        value = True if rename.new is None else values[section].pop(rename.new.partition(".")[2])
        back = {new: old for old, new in rename.values.items()}
        values[section][name] = back.get(value, value) if back else value
    path.write_text(json.dumps(values))
    claim(tmp_path, config)
    assert json.loads(path.read_text())["format_version"] == 3
    assert not NEW_NAMES.keys() & dict(configs.flatten(json.loads(path.read_text()))).keys()


@pytest.mark.parametrize("old", NEW_NAMES)
def test_an_old_name_in_a_flag_or_a_config_file_is_refused_with_the_new_one(old, tmp_path):
    expected = NEW_NAMES[old] or "leave it out"
    with pytest.raises(DeepLabError, match=re.escape(expected)):
        configs.override(configs.default(), old, "1")
    path = tmp_path / "mine.py"
    path.write_text(
        "from deeplab_jax import config as configs\n\n\n"
        f"def get_config(text=None):\n    config = configs.default()\n    config.{old} = 1\n"
        "    return config\n"
    )
    with pytest.raises(DeepLabError, match=re.escape(expected)):
        configs.load(str(path))


@pytest.mark.parametrize(("old", "expected"), [("batch_norm_group", "ghost_batch_size")])
def test_an_old_keyword_of_a_model_is_refused_with_the_new_one(old, expected):
    with pytest.raises(DeepLabError, match=rf"{old}.*now called '{expected}'"):
        create_model("deeplab_v3", **{old: 2})
