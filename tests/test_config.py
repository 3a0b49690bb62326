import json
import pathlib

import pytest

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model

RECIPES = sorted(
    path.stem for path in (pathlib.Path(__file__).parents[1] / "configs").glob("[!_]*.py")
)


def changed(*assignments):
    """Returns the default config with `field=text` assignments made."""
    config = configs.default()
    for assignment in assignments:
        configs.override(config, *assignment.split("=", 1))
    return config


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("seed=7", 7),
        ("schedule.base_learning_rate=1e-3", 0.001),
        ("schedule.power=1", 1.0),
        ("augmentation.flip=false", False),
        ("augmentation.flip=True", True),
        ("data.name=folder/pets", "folder/pets"),
        ("data.name=123", "123"),
        ("data.name=a=b", "a=b"),
        ("augmentation.crop_size=(65, 97)", (65, 97)),
        ("augmentation.crop_size=65,97", (65, 97)),
        ("augmentation.crop_size=[65,97]", (65, 97)),
        ("model.atrous_rates=6", (6,)),
        ("model.output_stride=8", 8),
        ("model.output_stride=None", None),
        ("evaluation.limit=none", None),
        ("loss.class_weights=none", None),
        ("model.decoder=none", "none"),
        ("model.decoder=None", None),
        ("model.backbone=resnet_50", "resnet_50"),
        ("model.depth_multiplier=1", 1.0),
        ("model.separable=true", True),
        ("loss.class_weights=1.0,2.5", (1.0, 2.5)),
        ("model.decoder_convs=[[3,64],[1,32]]", ((3, 64), (1, 32))),
        ("model.decoder_convs=[3,64],[1,32]", ((3, 64), (1, 32))),
        ("training.writers='wandb'", ("wandb",)),
        ("data.class_names='road','car'", ("road", "car")),
    ],
)
def test_text_becomes_the_type_of_the_field(assignment, value):
    fields = dict(configs.flatten(changed(assignment)))
    found = fields[assignment.partition("=")[0]]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("trainin.num_steps=3", "did you mean 'training.num_steps'?"),
        ("training=3", "unknown config field 'training'"),
        ("=3", "unknown config field ''"),
        ("training.num_steps=3.5", "training.num_steps must be of type int, got '3.5'"),
        ("training.num_steps=many", "must be of type int, got 'many'"),
        ("training.num_steps=None", "must be of type int, got 'None'"),
        ("training.num_steps=True", "must be of type int, got 'True'"),
        ("schedule.power=True", "must be of type float, got 'True'"),
        ("augmentation.flip=1", "must be of type bool, got '1'"),
        ("augmentation.crop_size=large", "must be of type tuple, got 'large'; separate values"),
        ("data.class_names=road,car", """put names in quotes, as in "'road','car'\""""),
        ("training.writers=wandb", "training.writers must be of type tuple, got 'wandb'"),
        ("seed=__import__('os')", "must be of type int"),
    ],
)
def test_mistakes_name_field_and_type_or_the_nearest_field(assignment, complaint):
    with pytest.raises(DeepLabError) as caught:
        changed(assignment)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_is_locked_against_unknown_fields():
    with pytest.raises((AttributeError, KeyError)):
        configs.default().trainin = 3


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (None, {"cpu": False, "steps": 900, "name": "a"}),
        ("cpu", {"cpu": True, "steps": 900, "name": "a"}),
        ("steps=5,name=b,cpu=false", {"cpu": False, "steps": 5, "name": "b"}),
    ],
)
def test_arguments_of_a_config(text, values):
    assert configs.arguments(text, cpu=False, steps=900, name="a").to_dict() == values


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("step=5", "unknown config argument 'step'; did you mean 'steps'?"),
        ("steps=few", "steps must be of type int, got 'few'"),
        ("steps", "steps must be of type int"),
    ],
)
def test_arguments_are_strict(text, complaint):
    with pytest.raises(DeepLabError) as caught:
        configs.arguments(text, cpu=False, steps=900)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves_by_name_and_by_path(recipe):
    config = configs.load(recipe)
    by_path = configs.load(f"configs/{recipe}.py")
    assert configs.to_json(config) == configs.to_json(by_path)
    fields = config.model.to_dict()
    create_model(
        fields.pop("architecture"), **{name: v for name, v in fields.items() if v is not None}
    )
    restored = configs.from_json(configs.to_json(config))
    assert configs.differences(config, restored) == []


def test_values_that_a_recipe_sets_can_be_unset():
    config = configs.load("camvid:cpu")
    configs.override(config, "loss.class_weights", "None")
    assert config.loss.class_weights is None
    assert configs.load("folder:cpu").loss.class_weights is None


@pytest.mark.parametrize(
    ("arguments", "backbone", "steps"),
    [
        ("best", "timm/tf_efficientnet_lite0", 2800),
        ("best,steps=7", "timm/tf_efficientnet_lite0", 7),
        ("best_gpu", "timm/tf_efficientnet_lite2", 12_000),
        ("cpu", "mobilenet_v2", 1800),
        ("cpu,init=x", "mobilenet_v2", 1000),
        ("", "mobilenet_v2", 20_000),
    ],
)
def test_variants_of_the_camvid_recipe(arguments, backbone, steps):
    config = configs.load(f"camvid:{arguments}")
    assert (config.model.backbone, config.training.num_steps) == (backbone, steps)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("cpu,best", "the arguments cpu and best exclude each other"),
        ("best,best_gpu", "the arguments best and best_gpu exclude each other"),
        ("best,init=x", "best has its own initial weights; leave init out"),
    ],
)
def test_contradicting_arguments_of_the_camvid_recipe(arguments, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        configs.load(f"camvid:{arguments}")


def test_a_recipe_takes_arguments():
    assert configs.load("shapes:steps=12").training.num_steps == 12
    with pytest.raises(DeepLabError, match=r"shapes.py: unknown config argument 'stesp'.*'steps'"):
        configs.load("shapes:stesp=12")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("config.training.num_stesp = 3", "did you mean 'training.num_steps'?"),
        ("config.trainin.num_steps = 3", "did you mean 'training'?"),
        ("config.training.num_steps = 'many'", "num_steps"),
        ("config.model.backbone = 50", "backbone"),
        ("config.zzz.num_steps = 3", "unknown config field 'zzz'"),
        ("config['zzz'] = 3", "unknown config field 'zzz'"),
        ("config.seed = = 3", "invalid syntax"),
    ],
)
def test_mistakes_in_a_config_file_name_the_file(tmp_path, text, complaint):
    path = tmp_path / "mine.py"
    path.write_text(
        "from deeplab_jax import config as configs\n\n\n"
        "def get_config(text=None):\n"
        f"    config = configs.default()\n    {text}\n    return config\n"
    )
    with pytest.raises(DeepLabError) as caught:
        configs.load(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert "\n" not in message


def test_a_file_without_get_config_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("learning_rate = 3\n")
    with pytest.raises(DeepLabError, match=r"mine.py.*get_config"):
        configs.load(str(path))


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("shape", "did you mean 'shapes'?"),
        ("configs/shape.py", "did you mean 'shapes'?"),
        ("elsewhere/shapes.py", "no config file elsewhere/shapes.py"),
        ("elsewhere/shapes", "no config file elsewhere/shapes; packaged configs: "),
        ("shapes.json", "no config file shapes.json"),
        ("gs://bucket/shapes.py", "gs://bucket/shapes.py: config files are read from a local path"),
    ],
)
def test_a_missing_config_lists_the_available_ones(tmp_path, monkeypatch, reference, complaint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeepLabError) as caught:
        configs.load(reference)
    assert complaint in str(caught.value)


def test_only_a_bare_name_is_that_of_a_packaged_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "shapes").mkdir(parents=True)
    with pytest.raises(DeepLabError, match=r"runs/shapes is not a Python file.*only records"):
        configs.load("runs/shapes")
    (tmp_path / "shapes").mkdir()
    assert configs.load("shapes").data.name == "shapes"
    assert configs.load("configs/shapes").data.name == "shapes"


def test_json_round_trip_keeps_every_value():
    config = changed(
        "model.decoder_convs=((3, 64), (1, 32))", "augmentation.crop_size=65,97", "seed=3"
    )
    text = configs.to_json(config)
    restored = configs.from_json(text)
    assert configs.to_json(restored) == text
    assert restored.model.decoder_convs == ((3, 64), (1, 32))
    assert restored.augmentation.crop_size == (65, 97)


def test_json_of_an_older_version_gets_defaults_and_of_a_newer_one_is_refused():
    values = json.loads(configs.to_json(changed("seed=3")))
    del values["training"]["ema_decay"]
    assert configs.from_json(json.dumps(values)).training.ema_decay == 0
    values["training"]["ema_deca"] = 0.5
    with pytest.raises(DeepLabError, match=r"did you mean 'training.ema_decay'\?"):
        configs.from_json(json.dumps(values))


def test_differences_are_those_that_decide_results():
    one = changed("augmentation.crop_size=65,97")
    other = configs.from_json(configs.to_json(one))
    for field in configs.FREE_FIELDS:
        owner, _, name = field.rpartition(".")
        kind = (other[owner] if owner else other).get_type(name)
        configs.override(other, field, "True" if kind is bool else "9")
    assert configs.differences(one, other) == []
    configs.override(other, "seed", "5")
    configs.override(other, "augmentation.crop_size", "65,65")
    assert configs.differences(one, other) == [
        "augmentation.crop_size: (65, 97) → (65, 65)",
        "seed: 0 → 5",
    ]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("return {}['zzz']", "line 2: KeyError: 'zzz'"),
        ("return null", "line 2: NameError: name 'null' is not defined"),
        ("return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "line 2: ValueError: two lines"),
        ("pass", "get_config must return a ConfigDict, but returned NoneType; start from"),
        ("return {'seed': 3}", "get_config must return a ConfigDict, but returned dict"),
        (
            "import ml_collections; return ml_collections.ConfigDict({'seed': 3})",
            "the config lacks augmentation.classmix, augmentation.copy_paste, ",
        ),
    ],
)
def test_a_defect_of_a_config_file_names_the_file_and_the_line(tmp_path, body, complaint):
    path = tmp_path / "mine.py"
    path.write_text(f"def get_config(text=None):\n    {body}\n")
    with pytest.raises(DeepLabError) as caught:
        configs.load(str(path))
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_the_config_of_a_workdir_is_not_a_config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(configs.to_json(configs.default()))
    with pytest.raises(
        DeepLabError, match=r"config\.json is not a Python file.*only records a run"
    ):
        configs.load(str(path))
