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

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("step", [1, 5, 8])
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


class StoppingReporter(RecordingReporter):
    """Receives SIGTERM at the first image of the first validation."""

    def track(self, items, description, total=None):
        signal.raise_signal(signal.SIGTERM)
        return super().track(items, description, total)


def stop_at_validation(commands, workdir):
    """Resumes training in this process and stops it in its next validation; returns messages."""
    config, reporter = configs.load(str(commands.config)), StoppingReporter()
    config.data.data_dir = str(commands.data_dir)
    with pytest.raises(KeyboardInterrupt):
        deeplab_jax.train(config, workdir, reporter=reporter, mesh=make_mesh(jax.devices()[:1]))
    return reporter.messages


def validated_steps(workdir):
    return [row["step"] for row in read_rows(workdir) if VALIDATION in row]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_lose_no_step_and_no_validation(commands, trained, tmp_path, number):
    workdir = tmp_path / "run"
    stopped = commands.stop_at_step(workdir, 2, number)
    assert stopped.returncode == 130
    assert "the same command resumes the run" in stopped.stderr
    saved, validated = saved_step(workdir), validated_steps(workdir)
    assert saved == max(losses(workdir))
    messages = stop_at_validation(commands, workdir)
    assert any(f"resuming from step {saved} " in message for message in messages)
    assert saved_step(workdir) == (12 if validated else 6)
    assert validated_steps(workdir) == validated
    # The next start makes the validation up.
    resumed = commands.run(*commands.train_words(workdir))
    assert validated or "resuming from step 6 " in resumed.stderr
    assert validated_steps(workdir) == [6, 12]
    assert_same_end(workdir, trained)
