"""Saving does not overlap, and a run resumes from the newest valid checkpoint."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_process import values
from outage import ERRORS
from reporters import RecordingReporter

from deeplab_jax.checkpointing import orbax_items
from deeplab_jax.errors import DeepLabError
from deeplab_jax.training import checkpoints
from deeplab_jax.training.checkpoints import Checkpointer

NAN = float("nan")


def state(step):
    return jax.tree.map(jnp.asarray, values(step))


def save(workdir, *steps):
    with Checkpointer(workdir) as checkpointer:
        for step in steps:
            checkpointer.save(state(step), {"step": step})


def restored(workdir, reporter=None):
    with Checkpointer(workdir, reporter) as checkpointer:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
            state(0),
        )
        return checkpointer.restore(shapes)


def assert_is(found, step):
    jax.tree.map(np.testing.assert_array_equal, found, state(step))


def test_a_save_waits_for_the_one_before(tmp_path, monkeypatch):
    times, write = [], orbax_items._write_manifests

    def slowly(directory):
        begun = time.monotonic()
        names = [path.name for path in directory.iterdir() if "tmp" in path.name]
        assert len(names) == 1
        time.sleep(0.2)
        write(directory)
        times.append((begun, time.monotonic()))

    monkeypatch.setattr(orbax_items, "_write_manifests", slowly)
    save(tmp_path, 1, 2, 3)
    assert len(times) == 3
    assert all(end < begin for (_, end), (begin, _) in zip(times, times[1:], strict=False))  # noqa: RUF007
    assert_is(restored(tmp_path), 3)


def test_a_checkpoint_is_ranked_by_a_later_validation(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        for step, mean_iou in ((1, None), (2, 0.5), (3, None)):
            checkpointer.save(state(step), {"step": step}, mean_iou)
        checkpointer.rank(state(3), {"step": 3}, 0.75)
    with orbax_items.open_checkpoints(tmp_path) as manager:
        assert manager.best_step() == 3
        assert manager.metrics(3) == {"mean_iou": 0.75}
    assert_is(restored(tmp_path), 3)


def test_the_only_checkpoint_is_not_replaced(tmp_path):
    save(tmp_path, 1)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.rank(state(1), {"step": 1}, 0.75)
    assert_is(restored(tmp_path), 1)


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(DeepLabError, match=r"checkpoints cannot be written \(File exists\)"):
        Checkpointer(tmp_path)


@pytest.mark.parametrize("error", ERRORS)
def test_an_outage_does_not_hide_the_error_of_a_save(tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    for name in ("save_items", "newest_good_step"):
        monkeypatch.setattr(checkpoints, name, fail)
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(DeepLabError, match=r"could not save .* the earlier checkpoints cannot be"),
    ):
        checkpointer.save(state(1), {"step": 1})


def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "checkpoints" / "2" / "variables" / "_METADATA").write_text("{}")
    warnings = RecordingReporter()
    assert_is(restored(tmp_path, warnings), 1)
    (text,) = warnings.warnings
    assert "the checkpoint of step 2 is damaged (variables/_METADATA has 2 bytes" in text
    assert str(tmp_path / "damaged_checkpoints" / "2") in text
    # The step is saved again when the run comes to it.
    save(tmp_path, 2)
    assert_is(restored(tmp_path), 2)


def test_a_run_with_only_damaged_checkpoints_is_refused(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / "1" / "files.json").write_text("")
    with pytest.raises(
        DeepLabError, match=r"all checkpoints in .* are damaged \(step 1: .*restore one"
    ):
        restored(tmp_path)


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    save(tmp_path, 1)
    left = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (left / "variables").mkdir(parents=True)
    assert_is(restored(tmp_path), 1)
    save(tmp_path, 2)
    assert not left.exists()
    assert_is(restored(tmp_path), 2)


@pytest.mark.parametrize(
    ("scores", "best"),
    [((NAN, 0.5, 0.4, 0.3), 2), ((0.5, NAN, 0.4, 0.3), 1), ((NAN, NAN, NAN, NAN), 4)],
)
def test_a_validation_without_a_number_is_never_the_best(tmp_path, scores, best):
    with Checkpointer(tmp_path) as checkpointer:
        for step, score in enumerate(scores, start=1):
            checkpointer.save(state(step), {"step": step}, score)
    with orbax_items.open_checkpoints(tmp_path) as manager:
        assert orbax_items.choose_step(manager, "best") == best
        assert set(manager.all_steps()) >= {best, 3, 4}
