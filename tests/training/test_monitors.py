import json
import sys

import pytest
from reporters import RecordingReporter
from tensorboardX.proto.event_pb2 import Event

from deeplab_jax.errors import DeepLabError
from deeplab_jax.training import writers
from deeplab_jax.training.writers import Monitor, read_rows


@pytest.fixture
def interrupted(tmp_path):
    """A workdir with rows of steps 10, 20 and 30."""
    with Monitor(tmp_path, 0) as monitor:
        for step in (10, 20, 30):
            monitor.write(step, {"loss": step / 10})
    return tmp_path


def steps(workdir):
    return [row["step"] for row in read_rows(workdir)]


def test_log_rows_can_be_read_while_the_monitor_writes(tmp_path):
    assert read_rows(tmp_path) == []
    with Monitor(tmp_path, 0) as monitor:
        monitor.write(5, {"loss": 0.5, "learning_rate": 0.1})
        assert read_rows(tmp_path) == [{"step": 5, "loss": 0.5, "learning_rate": 0.1}]


def test_a_resumed_run_drops_log_rows_after_its_checkpoint(interrupted):
    with Monitor(interrupted, 20) as monitor:
        assert steps(interrupted) == [10, 20]
        monitor.write(30, {"loss": 9.0})
    assert steps(interrupted) == [10, 20, 30]
    assert read_rows(interrupted)[-1]["loss"] == 9.0


@pytest.mark.parametrize("cut", ['{"step": 40, "lo', "{", '{"step"'])
def test_a_last_line_that_was_cut_short_is_left_out(interrupted, cut):
    with (interrupted / "metrics.jsonl").open("a") as file:
        file.write(cut)
    assert steps(interrupted) == [10, 20, 30]
    with Monitor(interrupted, 40) as monitor:
        monitor.write(50, {"loss": 1.0})
    lines = (interrupted / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 50]


def test_tensorboard_gets_the_same_numbers(interrupted):
    (path,) = (interrupted / "tensorboard").iterdir()
    values = {}
    with path.open("rb") as file:
        while record := file.read(12):
            length = int.from_bytes(record[:8], "little")
            event = Event.FromString(file.read(length))
            file.read(4)
            for value in event.summary.value:
                values[event.step, value.tag] = value.simple_value
    assert values == {(10, "loss"): 1.0, (20, "loss"): 2.0, (30, "loss"): 3.0}


@pytest.mark.parametrize("moment", ["open", "write", "close"])
def test_a_writer_that_fails_causes_one_warning(tmp_path, monkeypatch, moment):
    class Failing:
        def __init__(self, *arguments):
            self._at("open")

        def write(self, step, scalars):
            self._at("write")

        def close(self, failed):
            self._at("close")

        def _at(self, here):
            if here == moment:
                raise OSError("no network")

    monkeypatch.setattr(writers, "WandB", Failing)
    reporter = RecordingReporter()
    with Monitor(tmp_path, 0, ("wandb",), {}, reporter) as monitor:
        for step in (1, 2, 3):
            monitor.write(step, {"loss": 1.0})
    assert steps(tmp_path) == [1, 2, 3]
    assert reporter.warnings == [
        "the metrics writer wandb failed: no network; the run continues without this writer, and "
        "still writes all metrics to metrics.jsonl"
    ]


def test_a_writer_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DeepLabError, match=r"pip install 'deeplab_jax\[wandb\]'"):
        writers.check_writers(("tensorboard", "wandb"))
