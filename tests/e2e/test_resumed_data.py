"""`train` goes on with the data that it began with, wherever they are, and with no other."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    """A copy of a finished run."""
    return shutil.copytree(trained, tmp_path_factory.mktemp("resumed") / "run")


def words(commands, workdir, data_dir):
    return [*commands.train_words(workdir), f"--config.data.data_dir={data_dir}"]


def test_a_workdir_holds_what_identifies_its_data(trained):
    data = json.loads((trained / "data.json").read_text())
    assert [(role, facts["num_images"]) for role, facts in data.items()] == [
        ("train", 24),
        ("validation", 7),
    ]
    assert data["train"]["name"] == "shapes"


# tests/training/test_workdir.py and tests/data hold the fingerprints.
@pytest.mark.slow
def test_the_same_data_may_move_and_other_data_are_refused(commands, workdir, tmp_path):
    moved = shutil.copytree(commands.data_dir, tmp_path / "moved")
    resumed = commands.run(*words(commands, workdir, moved))
    assert "all 12 steps are done already" in resumed.stderr
    other = tmp_path / "other"
    commands.run(
        "prepare",
        "shapes",
        f"--data_dir={other}",
        *("--num_train=24", "--num_val=7", "--size=48", "--seed=1"),
    )
    before = {path: path.read_bytes() for path in workdir.glob("*.json*")}
    refused = commands.run(*words(commands, workdir, other), status=2)
    assert "train content" in refused.stderr
    assert str(workdir / "data.json") in refused.stderr
    assert {path: path.read_bytes() for path in workdir.glob("*.json*")} == before
    # A workdir of an earlier version has no record: it accepts the data and records them.
    (workdir / "data.json").unlink()
    commands.run(*words(commands, workdir, other))
    recorded = json.loads((workdir / "data.json").read_text())
    assert recorded["train"]["content"] not in before[workdir / "data.json"].decode()
