import dataclasses
import json

import pytest
from stand_ins import write_workdir

from deeplab_jax import config as configs
from deeplab_jax.architecture_fields import ArchitectureFields, Shorthands
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.cli.main import run
from deeplab_jax.config_fields import declared_fields
from deeplab_jax.declarations import declaration
from deeplab_jax.errors import DeepLabError

SMALL = ["deeplab_v3", "--backbone=mobilenet_v2", "--size=65x97"]
KEYS = [
    *("parameters", "macs", "macs_tf_convention", "output_stride"),
    *("receptive_field", "endpoints", "layers"),
]


@pytest.fixture
def inspect(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty directory; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: (run(["inspect", *arguments], Console()), *capsys.readouterr())


def test_tables_of_units_and_of_convolutions(inspect):
    status, short, error = inspect(*SMALL)
    assert (status, error) == (0, "")
    assert "backbone/layer_3 " in short
    assert "expand" not in short
    assert "2,113,557" in short
    assert "receptive field" in short
    assert "5×7×320" in short
    assert max(map(len, short.splitlines())) <= 80
    status, long, _ = inspect(*SMALL, "--layers")
    assert status == 0
    assert "  expand " in long
    assert "endpoint layer_3/depthwise" in long


def test_json_has_exactly_the_promised_keys(inspect):
    status, printed, _ = inspect(*SMALL, "--num_classes=4", "--set=output_stride=8", "--json")
    assert status == 0
    found = json.loads(printed)
    assert list(found) == KEYS
    assert found["output_stride"] == 8
    assert found["endpoints"]["scores"] == [9, 13, 4]
    row = found["layers"][0]
    assert (row["name"], row["kernel"], row["stride"]) == ("backbone/layer_1", [3, 3], [2, 2])
    assert (row["rate"], row["groups"], row["output"]) == ([1, 1], 1, [33, 49, 32])
    assert row["macs"] == 33 * 49 * 32 * 27
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]


def test_a_trained_model(inspect, tmp_path):
    write_workdir(tmp_path / "run", ["sky", "tree"])
    status, printed, _ = inspect("--model=run", "--size=65x65", "--json")
    assert status == 0
    assert json.loads(printed)["endpoints"]["scores"] == [5, 5, 2]


@pytest.mark.parametrize("flag", ["--set", "--set=help"])
def test_every_keyword_is_described_as_declared(inspect, flag):
    status, printed, error = inspect(flag)
    assert (status, error) == (0, "")
    lines = {line.partition(":")[0]: line for line in printed.splitlines()}
    for owner in (ArchitectureFields, Shorthands):
        for field in dataclasses.fields(owner):
            assert declaration(field).help in lines[field.name]
            assert all(str(legal) in lines[field.name] for legal in declaration(field).legal)


def test_every_config_field_is_described_as_declared(inspect):
    status, printed, error = inspect("--config")
    assert (status, error) == (0, "")
    lines = {line.partition(":")[0]: line for line in printed.splitlines()}
    assert lines.keys() == dict(configs.flatten(configs.default())).keys()
    for name, _, field in declared_fields():
        assert declaration(field).help in lines[name]
        assert str(declaration(field).unit) in lines[name]


def test_a_section_or_a_field_is_described_alone(inspect):
    _, printed, _ = inspect("--config=loss")
    assert printed.startswith("loss.cross_entropy: Weight of the cross-entropy")
    assert "optimizer." not in printed
    _, printed, _ = inspect("--config=loss.dice")
    assert printed.count("\n") == 1
    assert "default: 0.0" in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config=los"], "unknown config section or field 'los'; did you mean 'loss'?"),
        (
            ["--config", "loss"],
            "unexpected argument 'loss'; the value of a flag must follow an equ",
        ),
        (["deeplab_v3", "--set", "output_stride=8"], "as in --config=loss and --set=output_stride"),
        ([], "give one architecture to inspect, or --model"),
        (["deeplab_v3", "deeplab_v2"], "give one architecture"),
        (["deeplab_v33"], "did you mean 'deeplab_v3'?"),
        (["deeplab_v3", "--backbone=resnet_5"], "did you mean 'resnet_50'?"),
        (["deeplab_v3", "--set=output_strid=8"], "did you mean 'output_stride'?"),
        (["deeplab_v3", "--set=output_stride=7"], "output_stride"),
        (["deeplab_v3", "--set=output_stride"], "'output_stride' must be KEY=VALUE"),
        (["deeplab_v3", "--set=atrous_rates=6,12"], "write tuples in brackets"),
        (["deeplab_v3", "--set=atrous_rates=(6,12"], "close every bracket"),
        (["deeplab_v3", "--set=multi_scale=(1,nan)"], "'(1,nan)' is not a Python literal"),
        (["deeplab_v3", "--set=head=large_fov,fov={[1]:2}"], "'{[1]:2}' is not a Python literal"),
        (["deeplab_v3", "--set=head=large_fov,fov={}"], "fov={} must be one of large, 4x4, 7x7"),
        (["deeplab_v3", "--set=backbone=[1]"], "unknown backbone '[1]'"),
        (["deeplab_v3", "--set=output_stride=16.0"], "output_stride=16.0 must be one of 4, 8,"),
        (["deeplab_v3", "--backbone=resnet_50", "--set=backbone=resnet_101"], "given twice"),
        (["deeplab_v3", "--num_classes=0"], "num_classes"),
        (["deeplab_v3", "--size=513"], "513x513"),
        (["deeplab_v3", "--size=9x1000000"], "is too large; give sides of at most 32768 pixels"),
        (["--model=nowhere"], "nowhere is not a model"),
        (["deeplab_v3", "--model=nowhere"], "omit deeplab_v3"),
        (["--model=nowhere", "--backbone=resnet_50"], "omit --backbone"),
    ],
)
def test_mistakes_give_one_line_errors(inspect, arguments, complaint):
    status, printed, error = inspect(*arguments)
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert complaint in error


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("", {}),
        ("head=aspp", {"head": "aspp"}),
        (
            "output_stride=8,atrous_rates=(12,24,36), head=aspp",
            {"output_stride": 8, "atrous_rates": (12, 24, 36), "head": "aspp"},
        ),
        ("decoder_convs=((3,256),(1,48)),dropout_rate=0.5", {
            "decoder_convs": ((3, 256), (1, 48)),
            "dropout_rate": 0.5,
        }),
        ("separable=True,aux_head=false,multi_grid=None", {
            "separable": True,
            "aux_head": False,
            "multi_grid": None,
        }),
        ("fov=7x7", {"fov": "7x7"}),
        ("decoder='none'", {"decoder": "none"}),
    ],
)  # fmt: skip
def test_keywords(text, keywords):
    assert parse_keywords(text) == keywords
    assert "(" in text or parse_keywords(text.replace(",", ";"), ";") == keywords


@pytest.mark.parametrize("text", ["=3", "a=", "a=1,,b=2", "a=1,a=2", "a=)(", "a=1,"])
def test_malformed_keyword_texts_are_refused(text):
    with pytest.raises(DeepLabError):
        parse_keywords(text)
