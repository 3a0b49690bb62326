"""The training loop around its steps: what a start does before the first and after the last."""

import json
import types

import jax
import pytest
from reporters import RecordingReporter

from deeplab_jax import config as configs
from deeplab_jax.parallel import JobInterrupt, make_mesh
from deeplab_jax.training import loop as module
from deeplab_jax.training.hooks import VALIDATION
from deeplab_jax.training.loop import Logs, Loop
from deeplab_jax.training.writers import Monitor

MEAN_IOU = 0.25


class Evaluations:
    """Evaluator of a network that always has the same mean IoU; counts its evaluations."""

    def __init__(self):
        self.count = 0

    def run(self, variables, reporter, *, stopping):
        if stopping():
            return None
        self.count += 1
        return types.SimpleNamespace(mean_iou=MEAN_IOU, pixel_accuracy=0.5)


class Checkpoints:
    """Checkpointer that saves nothing."""

    def wait(self):
        pass

    def rank(self, state, info, mean_iou):
        assert mean_iou == MEAN_IOU


@pytest.fixture
def start(tmp_path):
    """Returns a function that starts a run of 30 steps, validated every 10, at a given step."""

    def call(step, validations, *, patience=0, interrupted=False):
        rows = [{"step": at, VALIDATION: mean_iou} for at, mean_iou in validations.items()]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "metrics.jsonl").write_text(lines)
        config = configs.default()
        config.training.num_steps, config.evaluation.every_steps = 30, 10
        config.training.patience = patience
        run = types.SimpleNamespace(
            config=config,
            workdir=tmp_path,
            mesh=make_mesh(jax.devices()[:1]),
            description=types.SimpleNamespace(class_names=("a", "b")),
        )
        reporter, evaluations = RecordingReporter(), Evaluations()
        with Monitor(tmp_path, step, ()) as monitor:
            loop = Loop(
                run,
                evaluations,
                Checkpoints(),
                Logs(monitor, None, reporter),
                None,
                lambda: interrupted,
                lambda *_: None,
            )
            loop._run_steps = lambda state: pytest.fail("a step was trained")
            result = loop.train(types.SimpleNamespace(step=step, evaluated={}))
        return result, evaluations.count, reporter.messages

    return call


FINISHED = (30, {10: 0.1, 20: 0.2, 30: 0.3})
STOPPED_EARLY = (20, {10: 0.3, 20: 0.2})


@pytest.mark.parametrize(("step", "validations"), [FINISHED, STOPPED_EARLY])
def test_a_run_with_nothing_to_train_is_evaluated_again(start, step, validations):
    result, evaluated, messages = start(step, validations, patience=1)
    assert (result.step, result.mean_iou, evaluated) == (step, MEAN_IOU, 1)
    assert messages[0].startswith("nothing to train: ")


@pytest.mark.parametrize(("step", "validations"), [FINISHED, STOPPED_EARLY])
def test_a_signal_during_the_evaluation_of_a_finished_run_interrupts_it(start, step, validations):
    with pytest.raises(JobInterrupt):
        start(step, validations, patience=1, interrupted=True)


def test_early_stopping_counts_a_validation_that_was_interrupted(start):
    # The validation of step 20 is made up for, and it finds no better network than that of step 10.
    result, evaluated, messages = start(20, {10: 0.3}, patience=1)
    assert (result.step, result.mean_iou, evaluated) == (20, MEAN_IOU, 1)
    assert "nothing to train: the run stopped early at step 20 of 30" in messages


def test_an_interrupted_validation_that_finds_a_better_network_continues_the_training(start):
    with pytest.raises(pytest.fail.Exception, match="a step was trained"):
        start(20, {10: 0.2}, patience=1)


def test_only_process_0_reads_the_metrics(start, monkeypatch):
    monkeypatch.setattr(module, "is_first_host", lambda: False)
    monkeypatch.setattr(module, "read_rows", lambda workdir: pytest.fail("metrics were read"))
    _, evaluated, _ = start(30, {10: 0.1})
    assert evaluated == 1
