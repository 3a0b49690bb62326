"""Damage to any file of a checkpoint is detected or harmless."""

import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
from damages import DAMAGES
from etils import epath

from deeplab_jax.checkpointing import open_checkpoints, read_variables
from deeplab_jax.checkpointing.saved_states import (
    MARK,
    checkpoint_damage,
    damage,
    saved_steps,
    set_damaged_aside,
    write_manifest,
)
from deeplab_jax.errors import DeepLabError

STEPS = (3, 6, 9)


def content(step):
    return {"params": {"kernel": np.full((4, 5), step, np.float32), "bias": np.arange(step)}}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A workdir with checkpoints of three steps; the first one is the best."""
    path = tmp_path_factory.mktemp("good") / "run"
    with open_checkpoints(path, read_only=False) as manager:
        for step in STEPS:
            items = ocp.args.Composite(
                variables=ocp.args.StandardSave(content(step)),
                optimizer=ocp.args.StandardSave({"step": np.array(step)}),
                info=ocp.args.JsonSave({"classes": ["sky", "road"]}),
            )
            metrics = {"mean_iou": 1 / step}
            manager.save(step, args=items, metrics=metrics, custom_metadata=MARK)
    return path


@pytest.fixture
def workdir(good, tmp_path):
    return shutil.copytree(good, tmp_path / "run")


def files(directory):
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def assert_reads(workdir, step):
    read = read_variables(workdir, str(step))["params"]
    for name, array in content(step)["params"].items():
        np.testing.assert_array_equal(read[name], array)


def slow(*values):
    """A case of the same kind as a quick one."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (kind, step) if step == 9 and kind in ("truncate", "flip", "delete") else slow(kind, step)
        for kind in DAMAGES
        for step in STEPS
    ],
)
def test_every_single_damage_is_found_or_harmless(good, tmp_path, kind, step):
    found = 0
    for number, name in enumerate(files(good / "checkpoints" / str(step))):
        workdir = shutil.copytree(good, tmp_path / str(number))
        DAMAGES[kind](workdir / "checkpoints" / str(step) / name, np.random.default_rng(number))
        heard = []
        set_damaged_aside(workdir, heard.append)
        found += len(heard)
        assert saved_steps(workdir) == [kept for kept in STEPS if not heard or kept != step], name
        assert all(f"step {step} is damaged" in line for line in heard)
        with open_checkpoints(workdir, read_only=False) as manager:
            assert sorted(manager.all_steps()) == saved_steps(workdir)
        for kept in saved_steps(workdir):
            assert_reads(workdir, kept)
    # What the commit adds is for Orbax alone.
    assert found >= number


def test_nothing_is_lost_by_setting_aside(good, workdir):
    (workdir / "checkpoints" / "9" / "info" / "metadata").write_text("")
    for _ in range(2):
        shutil.copytree(good / "checkpoints", workdir / "checkpoints", dirs_exist_ok=True)
        (workdir / "checkpoints" / "9" / "info" / "metadata").write_text("")
        set_damaged_aside(workdir, lambda line: None)
    aside = workdir / "damaged_checkpoints"
    assert sorted(path.name for path in aside.iterdir()) == ["9", "9_2"]
    assert files(aside / "9") == files(good / "checkpoints" / "9")


def test_with_only_damaged_checkpoints_nothing_is_moved(good, workdir):
    for step in STEPS:
        (workdir / "checkpoints" / str(step) / "variables" / "_METADATA").unlink()
    with pytest.raises(
        DeepLabError, match=r"are damaged \(step 3: variables/_METADATA is missing; step 6: .*"
    ):
        set_damaged_aside(workdir, lambda line: None)
    assert saved_steps(workdir) == list(STEPS)


@pytest.mark.parametrize(
    ("checkpoint", "name", "said"),
    [
        ("last", "variables/manifest.ocdbt", r"step 9 in .* is damaged: variables/manifest.ocdbt"),
        ("best", "metrics/metrics", "step 9 in .* is damaged: metrics/metrics has"),
        ("9", "files.json", "step 9 in .* files.json or _CHECKPOINT_METADATA cannot be read"),
    ],
)
def test_readers_raise_one_line_errors(workdir, checkpoint, name, said):
    path = workdir / "checkpoints" / "9" / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DeepLabError, match=said) as caught:
        read_variables(workdir, checkpoint)
    assert "\n" not in str(caught.value)


def test_damage_in_unused_files_is_ignored(workdir):
    for path in (workdir / "checkpoints" / "9" / "optimizer").rglob("*"):
        path.is_file() and path.write_text("")
    assert "optimizer/" in checkpoint_damage(workdir, 9)
    assert_reads(workdir, 9)


def test_checkpoints_of_earlier_versions_have_no_manifest(tmp_path):
    with open_checkpoints(tmp_path, read_only=False) as manager:
        items = ocp.args.Composite(variables=ocp.args.StandardSave(content(1)))
        manager.save(1, args=items)
    (tmp_path / "checkpoints" / "1" / "files.json").unlink()
    assert checkpoint_damage(tmp_path, 1) is None
    assert_reads(tmp_path, 1)


def test_empty_files_and_more_files_than_written(tmp_path):
    (tmp_path / "empty").touch()
    write_manifest(epath.Path(tmp_path))
    (tmp_path / "new").touch()
    assert damage(epath.Path(tmp_path)) is None
    (tmp_path / "empty").write_text("x")
    assert damage(epath.Path(tmp_path)) == "empty has 1 bytes instead of 0"
