import dataclasses
import json

import pytest

from deeplab_jax.cli.flags import Flags
from deeplab_jax.crf import crf_parameters
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions


def parse(*arguments):
    flags = Flags()
    flags.define_inference()
    rest = flags(["command", *arguments])[1:]
    return flags.inference_options(), rest


def test_without_flags_there_is_no_strategy():
    assert parse() == (InferenceOptions(), [])


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--crf", "default"),
        ("--crf=true", "default"),
        ("--nocrf", None),
        ("--crf=deeplab_msc", "deeplab_msc"),
    ],
)
def test_the_crf_may_have_a_name(argument, expected):
    options, rest = parse(argument, "photo.jpg")
    assert options.crf == expected
    assert rest == ["photo.jpg"]


def test_the_crf_may_be_a_file_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "crf.json").write_text(json.dumps(dataclasses.asdict(crf_parameters("deeplab"))))
    assert parse("--crf=~/crf.json")[0].crf == crf_parameters("deeplab")


def test_every_flag_becomes_its_option():
    options, _ = parse(
        "--output_stride=8", "--scales=0.5,0.75,1", "--flip", "--tile=513x257", "--overlap=0.1"
    )
    assert options == InferenceOptions(8, (0.5, 0.75, 1.0), True, (513, 257), 0.1)


@pytest.mark.parametrize(
    "argument", ["--scales=0.5;1", "--scales=,", "--tile=513", "--overlap=0.2"]
)
def test_mistakes_are_errors(argument):
    with pytest.raises(DeepLabError):
        parse(argument)
