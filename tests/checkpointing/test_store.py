"""Selection of the checkpoint and of the variables of a workdir."""

import logging
import pathlib
import re
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import deeplab_jax
from deeplab_jax.checkpointing import (
    ModelDescription,
    StoredModel,
    digest_of_variables,
    open_checkpoints,
    read_model,
    read_variables,
)
from deeplab_jax.checkpointing.orbax_items import save_items
from deeplab_jax.errors import DeepLabError

SCORES = {10: 0.3, 20: 0.5, 30: None}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Checkpoints of steps 10 to 30; variables are the step, their moving average is −step."""
    path = tmp_path_factory.mktemp("run")
    with open_checkpoints(path, read_only=False) as manager:
        for step, mean_iou in SCORES.items():
            items = {
                name: ocp.args.StandardSave({"params": {"kernel": np.full(2, value, np.float32)}})
                for name, value in (("variables", step), ("ema", -step))
            }
            metrics = None if mean_iou is None else {"mean_iou": mean_iou}
            manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)
    return path


def test_the_best_and_the_last_are_kept(workdir):
    with open_checkpoints(workdir) as manager:
        assert sorted(manager.all_steps()) == [20, 30]


def test_reading_checkpoints_logs_no_warning(workdir, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("absl"), "propagate", True)
    with open_checkpoints(workdir):
        pass
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize(
    ("checkpoint", "ema", "value"),
    [
        ("best", None, -20),
        ("best", False, 20),
        ("last", True, -30),
        ("30", False, 30),
        (20, None, -20),
    ],
)
def test_the_requested_checkpoint_is_read(workdir, checkpoint, ema, value):
    kernel = read_variables(workdir, checkpoint, ema)["params"]["kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, np.full(2, value, np.float32))


@pytest.mark.parametrize("checkpoint", ["10", "newest", "²", "-20", "", 10])
def test_a_missing_step_error_lists_the_available_steps(workdir, checkpoint):
    with pytest.raises(DeepLabError, match=r"legal: best, last, 20, 30$"):
        read_variables(workdir, checkpoint)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_variables_that_are_not_finite_are_refused(tmp_path, dtype, value):
    kernel = np.array([1, value], dtype)
    with open_checkpoints(tmp_path, read_only=False) as manager:
        saved = ocp.args.StandardSave({"params": {"head": {"kernel": kernel}, "step": np.int8(1)}})
        manager.save(1, args=ocp.args.Composite(variables=saved))
    with pytest.raises(DeepLabError, match=r"variable params/head/kernel contains NaN or infinite"):
        read_variables(tmp_path, "last")


def test_readers_ignore_a_checkpoint_that_is_being_deleted(tmp_path, monkeypatch):
    deleted, read = [], []

    def read_both():
        read.extend(
            read_variables(tmp_path, which)["params"]["kernel"] for which in ("best", "last")
        )

    def delete_one_file(path, *given, **options):
        """Stands in for a process that is killed after it has deleted one file."""
        deleted.append(pathlib.Path(path))
        (deleted[-1] / "files.json").unlink()
        read_both()

    with open_checkpoints(tmp_path, read_only=False) as manager:
        save_items(manager, 1, {"variables": {"params": {"kernel": np.float32([1])}}}, {}, None)
        manager.wait_until_finished()
        monkeypatch.setattr(shutil, "rmtree", delete_one_file)
        for step in (2, 3):
            tree = {"params": {"kernel": np.full(1, step, np.float32)}}
            save_items(manager, step, {"variables": tree}, {}, {"mean_iou": 1 / step})
    monkeypatch.undo()
    read_both()
    assert read == [2, 3, 2, 3]
    (left,) = deleted
    assert left.is_dir()
    # When the training is resumed, the first save removes what is left.
    with open_checkpoints(tmp_path, read_only=False) as manager:
        save_items(manager, 4, {"variables": tree}, {}, None)
    assert not left.exists()


def test_averages_that_were_not_kept_are_refused(tmp_path):
    with open_checkpoints(tmp_path, read_only=False) as manager:
        item = ocp.args.StandardSave({"params": {"kernel": np.ones(1, np.float32)}})
        manager.save(5, args=ocp.args.Composite(variables=item))
    assert read_variables(tmp_path)["params"]["kernel"] == 1
    with pytest.raises(DeepLabError, match=r"has no moving average"):
        read_variables(tmp_path, ema=True)


def test_a_directory_without_model_or_checkpoint_is_refused(tmp_path):
    with pytest.raises(DeepLabError, match="no such directory"):
        read_model(tmp_path / "nowhere")
    with pytest.raises(DeepLabError, match="no checkpoint yet"):
        read_variables(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DeepLabError, match="no checkpoint yet"):
        read_variables(tmp_path)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.int8])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_digests_of_variables_depend_on_path_dtype_shape_and_values(dtype, shape):
    array = jnp.ones(shape, dtype)
    digest = digest_of_variables({"params": {"kernel": array}})
    assert digest == digest_of_variables({"params": {"kernel": np.ones(shape, dtype)}})
    changed = [{"kernel": jnp.ones(shape, jnp.float16)}, {"kernel": array[None]}, {"scale": array}]
    if array.size:
        changed.append({"kernel": array + array})
    others = [digest_of_variables({"params": variables}) for variables in changed]
    assert len({digest, *others}) == len(others) + 1


def test_one_module_imports_orbax():
    package = pathlib.Path(deeplab_jax.__file__).parent
    found = {
        path.name
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) orbax", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {"orbax_items.py"}


def test_a_changed_model_has_no_fitted_temperature():
    source = {"license": "mit", "temperature": {"temperature": 1.5}}
    overrides = {"backbone": "mobilenet_v2", "num_classes": 2}
    names, palette = ("sky", "tree"), ((0, 0, 0), (1, 2, 3))
    description = ModelDescription(
        "deeplab_v3", overrides, names, palette, source=source, temperature=1.5
    )
    changed = StoredModel(description.create_model(), {}, description).changed({}).description
    assert (changed.temperature, changed.source) == (1.0, {"license": "mit"})
