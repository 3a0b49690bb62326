import pytest

from deeplab_jax.training import hooks as module
from deeplab_jax.training.hooks import Pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock.now` in seconds."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def metrics(loss):
    return {"loss": loss, "learning_rate": loss / 10, "gradient_norm": 2 * loss}


def test_rates_are_of_the_time_spent_on_steps(clock):
    pace = Pace(batch_size=8)
    clock.now = 500.0
    pace.start()
    for loss in (1.0, 2.0, 6.0):
        pace.add(metrics(loss))
    clock.now += 10.0
    pace.pause(4.0)
    assert pace.summarize(metrics(6.0), steps_left=50) == {
        "loss": 3.0,
        "learning_rate": 0.6,
        "gradient_norm": 12.0,
        "images_per_second": pytest.approx(8 / 2.0),
        "seconds_left": pytest.approx(100.0),
    }


def test_a_summary_begins_the_next_measurement(clock):
    pace = Pace(batch_size=8)
    pace.add(metrics(1.0))
    clock.now += 1.0
    pace.summarize(metrics(1.0), steps_left=1)
    pace.pause(3.0)
    pace.add(metrics(5.0))
    clock.now += 5.0
    summary = pace.summarize(metrics(5.0), steps_left=10)
    assert (summary["loss"], summary["seconds_left"]) == (5.0, pytest.approx(20.0))
