import numpy as np
import PIL.Image
import pytest

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.cli.prepare import OPTIONS
from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.registry import BUILDERS


@pytest.fixture
def command(capsys):
    """Runs `deeplab-jax prepare …` and returns status, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(["prepare", *map(str, arguments)], Console())
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_shapes_with_a_report(command, tmp_path):
    options = [f"--data_dir={tmp_path}", "--num_train=3", "--num_val=2", "--size=40", "--seed=9"]
    status, out, err = command("shapes", *options, "--report")
    assert (status, err) == (0, "")
    assert "40x40" in out
    assert "triangle" in out
    assert len(open_dataset("shapes", tmp_path, "train")) == 3
    status, out, err = command("shapes", *options)
    assert status == 0
    assert "3 train, 2 val images" in out
    assert "already exists" in err


def test_a_named_folder(command, tmp_path):
    for kind, shape in (("images", (5, 6, 3)), ("masks", (5, 6))):
        for name in "abcdefgh":
            path = tmp_path / "pets" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    (tmp_path / "names.json").write_text('["other", "cat"]')
    for name in ("one", "two"):
        status, _, _ = command(
            "folder",
            f"--source={tmp_path / 'pets'}",
            f"--classes={tmp_path / 'names.json'}",
            f"--data_dir={tmp_path / 'data'}",
            f"--name={name}",
        )
        assert status == 0
    dataset = open_dataset("folder/two", tmp_path / "data", "train")
    assert dataset.descriptor.class_names == ("other", "cat")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give one dataset to prepare; legal: camvid"),
        (["camvod"], "unknown dataset 'camvod'; did you mean 'camvid'"),
        (["camvid"], "give --data_dir=DIR"),
        (["camvid", "--data_dir=x"], "give --source=DIR"),
        (["camvid", "--data_dir=x", "--source="], "give --source=DIR"),
        (
            ["folder", "--data_dir=x", "--source=gs://bucket/mine"],
            "--source=gs://bucket/mine: raw files are read from a local path only",
        ),
        (
            ["folder", "--data_dir=x", "--source=y", "--masks=s3://bucket/masks"],
            "--masks=s3://bucket/masks: raw files are read from a local path only",
        ),
        (
            ["shapes", "--data_dir=gs://bucket/data"],
            "--data_dir=gs://bucket/data: datasets are prepared on a local path only",
        ),
        (["camvid", "--data_dir=x", "--source=/nowhere"], "/nowhere: no such directory"),
        (["shapes", "--data_dir=x", "--source=y"], "--source does not apply to shapes"),
        (["folder", "--data_dir=x", "--source=y", "--name=a/b"], "--name=a/b is not legal"),
        (
            ["folder", "--data_dir=x", "--source=y", "--intensity_range=1"],
            "--intensity_range takes two numbers",
        ),
        (["shapes", "--data_dir=x", "--num_train=-1"], "num_train"),
        (["shapes", "--data_dir=x", "--size=15"], "size=15 is too small for shapes"),
        (["shapes", "--date_dir=x"], "date_dir"),
    ],
)
def test_mistakes_get_one_line_and_status_2(command, arguments, complaint):
    status, out, err = command(*arguments)
    assert status == 2
    assert out == ""
    assert complaint in err
    assert err.count("\n") == 1


def test_every_data_set_says_which_flags_it_takes():
    assert OPTIONS.keys() == BUILDERS.keys()


def test_help_shows_an_example(command):
    status, out, _ = command("--help")
    assert status == 0
    assert "deeplab-jax prepare folder --source=pets" in out
    assert "--skip_bad" in out
