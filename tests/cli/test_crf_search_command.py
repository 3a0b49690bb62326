import json

import pytest
from stand_ins import write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data.descriptors import SHAPES


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    prepare = ["--num_train=2", "--num_val=1", "--size=32", f"--data_dir={folder / 'data'}"]
    assert run(["prepare", "shapes", *prepare], Console()) == 0
    write_workdir(folder / "run", SHAPES.class_names)
    return folder


def command(name, world, *extra, split="train"):
    given = {"model": world / "run", "dataset": "shapes", "data_dir": world / "data"}
    flags = [f"--{flag}={value}" for flag, value in given.items()]
    return run([name, *flags, f"--split={split}", *extra], Console())


def test_found_parameters_are_accepted_by_other_commands(world, capsys):
    path = world / "crf.json"
    grid = ("--w1=3,6", "--sigma_alpha=30,70,100", "--sigma_beta=4")
    assert command("crf-search", world, "--limit=1", f"--output={path}", *grid) == 0
    printed = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert len(found["table"]) == 6
    assert f"{100 * found['mean_iou']:.2f}" in printed
    assert "best of 6 parameter combinations on 1 images" in printed
    report = world / "report"
    arguments = ["--limit=1", f"--crf={path}", f"--output={report}"]
    assert command("evaluate", world, *arguments) == 0
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["settings"]["crf"] == found["parameters"]
    assert metrics["mean_iou"] == found["mean_iou"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--crf", "omit --crf"),
        ("images", "only flags, not 'images'"),
        ("--w1=few", "--w1"),
        # `--crf=best.txt` would be the name of published parameters.
        ("--output=best.txt", "--output=best.txt must end with .json"),
    ],
)
def test_mistakes_are_reported(world, capsys, extra, message):
    assert command("crf-search", world, extra) == 2
    assert message in capsys.readouterr().err
