"""`train --folds`: interrupted in the second fold, taken up again, told in numbers."""

import json
import signal
import statistics
import time

import pytest

from deeplab_jax.training.writers import read_rows

# Four trainings in processes of their own: minutes.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("folds") / "run"


def words(commands, workdir, folds=2):
    return [*commands.train_words(workdir, "training.num_steps=4"), f"--folds={folds}"]


@pytest.fixture(scope="module")
def interrupted(commands, workdir):
    """Both folds, with the second stopped on its way; returns what the second command said."""
    with commands.start(*words(commands, workdir)) as process:
        while process.poll() is None:
            if any(row["step"] >= 2 for row in read_rows(workdir / "fold_2")):
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.01)
        process.communicate(timeout=300)
    assert json.loads((workdir / "cross_validation.json").read_text())["mean_ious"]
    return commands.run(*words(commands, workdir))


def test_interrupted_cross_validation_resumes(interrupted, workdir):
    assert "fold 1 of 2 is done" in interrupted.stderr
    found = json.loads((workdir / "cross_validation.json").read_text())
    assert found["folds"] == len(found["mean_ious"]) == 2
    assert found["mean"] == pytest.approx(statistics.mean(found["mean_ious"]))
    assert found["standard_deviation"] == pytest.approx(statistics.stdev(found["mean_ious"]))
    mean, deviation = found["mean"], found["standard_deviation"]
    assert f"mean IoU {mean:.4f} ± {deviation:.4f}" in interrupted.stdout
    for fold in ("fold_1", "fold_2"):
        last = read_rows(workdir / fold)[-1]
        assert last["step"] == 4
        assert last["validation_mean_iou"] in found["mean_ious"]


@pytest.mark.usefixtures("interrupted")
def test_another_number_of_folds_is_refused(commands, workdir):
    refused = commands.run(*words(commands, workdir, folds=3), status=2)
    assert "contains a cross-validation with 2 folds, not 3" in refused.stderr
