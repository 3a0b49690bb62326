"""A run that is killed and started again ends where an undisturbed one does, bit for bit."""

import signal

import jax
import numpy as np
import pytest
from reporters import RecordingReporter

import deeplab_jax
from deeplab_jax import config as configs
from deeplab_jax.checkpointing import open_checkpoints, read_variables
from deeplab_jax.parallel import make_mesh
from deeplab_jax.training.hooks import VALIDATION, read_rows


def slow(value):
    """A case of the same kind as a quick one."""
    return pytest.param(value, marks=pytest.mark.slow)


def losses(workdir):
    """The loss of every step: also tells whether the same images were seen."""
    return {row["step"]: row["loss"] for row in read_rows(workdir) if "loss" in row}


def assert_same_end(workdir, undisturbed):
    for ema in (False, True):
        ours, theirs = (read_variables(path, "12", ema) for path in (workdir, undisturbed))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert losses(workdir) == losses(undisturbed)


def saved_step(workdir):
    """The newest checkpoint that is whole on disk, None if there is none."""
    with open_checkpoints(workdir) as manager:
        return manager.latest_step()


@pytest.mark.parametrize("step", [slow(1), slow(5), slow(8)])
def test_kill_then_resume_is_bit_identical(commands, trained, tmp_path, step):
    workdir = tmp_path / "run"
    killed = commands.stop_at_step(workdir, step, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    reached, saved = max(losses(workdir)), saved_step(workdir)
    # One is saved every 3 steps, after its row; the newest may still have been on its way.
    due = (reached - 1) // 3 * 3
    assert due - 3 <= (saved or 0) <= reached
    resumed = commands.run(*commands.train_words(workdir))
    assert (f"resuming from step {saved} " in resumed.stderr) == (saved is not None)
    assert_same_end(workdir, trained)


@pytest.mark.parametrize("number", [slow(signal.SIGINT), signal.SIGTERM])
def test_sigterm_loses_no_step(commands, trained, tmp_path, number):
    workdir = tmp_path / "run"
    stopped = commands.stop_at_step(workdir, 4, number)
    assert stopped.returncode == 130
    assert "the same command resumes the run" in stopped.stderr
    saved = saved_step(workdir)
    assert saved == max(losses(workdir))
    resumed = commands.run(*commands.train_words(workdir))
    assert f"resuming from step {saved} " in resumed.stderr
    assert_same_end(workdir, trained)


class StoppingReporter(RecordingReporter):
    """Receives SIGTERM at the first image of the first validation."""

    def track(self, items, description, total=None):
        signal.raise_signal(signal.SIGTERM)
        return super().track(items, description, total)


def test_sigterm_ends_a_validation_which_the_next_start_makes_up(commands, tmp_path):
    workdir = tmp_path / "run"
    config = configs.load(str(commands.config))
    config.data.data_dir = str(commands.data_dir)
    mesh = make_mesh(jax.devices()[:1])
    with pytest.raises(KeyboardInterrupt):
        deeplab_jax.train(config, workdir, reporter=StoppingReporter(), mesh=mesh)
    assert saved_step(workdir) == 6
    assert not [row for row in read_rows(workdir) if VALIDATION in row]
    deeplab_jax.train(config, workdir, reporter=RecordingReporter(), mesh=mesh)
    scores = {row["step"]: row[VALIDATION] for row in read_rows(workdir) if VALIDATION in row}
    assert list(scores) == [6, 12]
