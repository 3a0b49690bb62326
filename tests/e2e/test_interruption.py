"""A run that is killed and started again ends where an undisturbed one does, bit for bit."""

import signal

import jax
import numpy as np
import pytest

from deeplab_jax.model_store import open_checkpoints, read_variables
from deeplab_jax.training.monitors import read_rows


def losses(workdir):
    """The loss of every step: also tells whether the same images were seen."""
    return {row["step"]: row["loss"] for row in read_rows(workdir) if "loss" in row}


def assert_same_end(workdir, undisturbed):
    for ema in (False, True):
        ours, theirs = (read_variables(path, "12", ema) for path in (workdir, undisturbed))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert losses(workdir) == losses(undisturbed)


@pytest.mark.parametrize(
    "step", [1, pytest.param(5, marks=pytest.mark.slow), pytest.param(8, marks=pytest.mark.slow)]
)
def test_kill_then_resume_is_bit_identical(commands, trained, tmp_path, step):
    workdir = tmp_path / "run"
    killed = commands.stop_at_step(workdir, step, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    resumed = commands.run(*commands.train_words(workdir))
    # Between 3 and 6 the checkpoint of step 3 may or may not be on disk yet; both must end alike.
    if step not in range(3, 7):
        assert ("going on from step" in resumed.stderr) == (step > 6)
    assert_same_end(workdir, trained)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_asked_to_stop_loses_no_step(commands, trained, tmp_path, number):
    workdir = tmp_path / "run"
    stopped = commands.stop_at_step(workdir, 4, number)
    assert stopped.returncode == 130
    assert "the same command goes on from there" in stopped.stderr
    with open_checkpoints(workdir) as manager:
        saved = manager.latest_step()
    assert saved == max(losses(workdir))
    resumed = commands.run(*commands.train_words(workdir))
    assert f"going on from step {saved} " in resumed.stderr
    assert_same_end(workdir, trained)
