import json

import pytest
from stand_ins import write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data.descriptors import SHAPES


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory with a prepared `shapes` in data/ and an untrained model of it in run/."""
    folder = tmp_path_factory.mktemp("world")
    prepare = ["--num_train=1", "--num_val=5", "--size=64", f"--data_dir={folder / 'data'}"]
    assert run(["prepare", "shapes", *prepare], Console()) == 0
    write_workdir(folder / "run", SHAPES.class_names)
    write_workdir(folder / "other", ["sky", "tree"])
    return folder


@pytest.fixture
def evaluate(world, monkeypatch, capsys):
    """Runs the command; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(world)
    capsys.readouterr()
    defaults = {"model": "run", "dataset": "shapes", "split": "val", "data_dir": "data"}

    def evaluate(*extra, **flags):
        given = [f"--{name}={value}" for name, value in (defaults | flags).items()]
        return run(["evaluate", *given, *extra], Console()), *capsys.readouterr()

    return evaluate


def test_prints_the_table_and_writes_the_report(evaluate, world):
    status, printed, _ = evaluate("--batch_size=2", output="report")
    assert status == 0
    metrics = json.loads((world / "report" / "metrics.json").read_text())
    assert metrics["num_images"] == 5
    assert list(metrics["per_class_iou"]) == list(SHAPES.class_names)
    assert f"{100 * metrics['mean_iou']:.2f}" in printed
    assert metrics["settings"]["size"] == [65, 65]
    assert metrics["settings"]["model"] == "run"
    assert (world / "report" / "contact_sheet.png").stat().st_size > 0
    status, printed, _ = evaluate("--batch_size=5", "--limit=3", "--size=81x70")
    assert status == 0
    assert printed.rstrip().endswith("3")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"split": "vol"}, "val"),
        ({"dataset": "shaeps"}, "shapes"),
        ({"data_dir": "nowhere"}, "nowhere"),
        ({"model": "nowhere"}, "nowhere"),
        ({"model": "data"}, "model.json"),
        ({"model": "other"}, "the model has 2 classes, the data set shapes has"),
        ({"size": "513"}, "513x513"),
        ({"size": "32x32"}, "larger than the evaluation size"),
        ({"limit": "0"}, "limit"),
        ({"dataset": ""}, "--dataset must be given"),
        ({"flip": "true"}, "flip"),
    ],
)
def test_mistakes_are_one_line(evaluate, world, flags, complaint):
    status, printed, error = evaluate(output="unwritten", **flags)
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert complaint in error
    assert not (world / "unwritten").exists()
