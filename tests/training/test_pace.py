import threading

import pytest

from deeplab_jax.training import measurements as module
from deeplab_jax.training.goodput import VALIDATION
from deeplab_jax.training.measurements import Pace, slow_host, slow_host_warning


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


class Loss(float):
    """Loss of a step that the devices finish when the test says so."""

    def __new__(cls, value):
        loss = super().__new__(cls, value)
        loss.done = threading.Event()
        return loss

    def block_until_ready(self):
        assert self.done.wait(10)


def metrics(loss):
    return {"loss": loss, "learning_rate": loss / 10, "gradient_norm": 2 * loss}


def finish(pace, loss):
    """Lets a step end at the current time of the clock."""
    loss.done.set()
    pace._clock._waiting.join()


def test_rates_are_of_the_time_spent_on_steps(clock):
    pace = Pace(batch_size=8)
    clock.now = 500.0
    pace.start()
    for loss in (1.0, 2.0, 6.0):
        pace.add(metrics(loss))
    with pace.pausing(VALIDATION):
        clock.now += 4.0
    clock.now += 6.0
    assert pace.summarize(metrics(6.0), steps_left=50) == {
        "loss": 3.0,
        "learning_rate": 0.6,
        "gradient_norm": 12.0,
        "images_per_second": pytest.approx(8 / 2.0),
        "seconds_left": pytest.approx(100.0),
        "step_seconds": pytest.approx(2.0),
        "step_seconds_deviation": 0.0,
        "input_wait_fraction": 0.0,
    }
    assert pace.totals[VALIDATION] == pytest.approx(4.0)


def test_a_summary_begins_the_next_measurement(clock):
    pace = Pace(batch_size=8)
    pace.add(metrics(1.0))
    clock.now += 1.0
    pace.summarize(metrics(1.0), steps_left=1)
    with pace.pausing(VALIDATION):
        clock.now += 3.0
    pace.add(metrics(5.0))
    clock.now += 5.0
    summary = pace.summarize(metrics(5.0), steps_left=10)
    assert (summary["loss"], summary["seconds_left"]) == (5.0, pytest.approx(50.0))


def test_only_time_for_which_the_devices_wait_is_waiting_for_input(clock):
    """Three steps of 2 s, whose next batches are read in 1, 3 and 0 s."""
    pace = Pace(batch_size=8)
    pace.start()
    first, second, third = (Loss(1.0) for _ in range(3))
    pace.add(metrics(first))
    with pace.reading():
        clock.now += 1.0
    clock.now += 1.0
    finish(pace, first)
    pace.add(metrics(second))
    with pace.reading():
        clock.now += 2.0
        finish(pace, second)
        clock.now += 1.0
    pace.add(metrics(third))
    with pace.reading():
        pass
    clock.now += 2.0
    finish(pace, third)
    summary = pace.summarize(metrics(third), steps_left=0)
    assert summary["input_wait_fraction"] == pytest.approx(1 / 7)
    # Between the ends of the steps lie 2 s, and 1 + 2 s.
    assert summary["step_seconds_deviation"] == pytest.approx(0.5)


def times(*waits):
    return [
        {"process": n, "host": f"h{n}", "step_seconds": 2.0, "input_wait_fraction": wait}
        for n, wait in enumerate(waits)
    ]


@pytest.mark.parametrize(
    ("waits", "slow"),
    [((0.0, 0.4), 1), ((0.3, 0.02, 0.05), 0), ((0.3, 0.4, 0.3), None), ((0.0, 0.05), None)],
)
def test_the_slow_host_is_the_one_whose_devices_alone_wait_for_input(waits, slow):
    found = slow_host(times(*waits))
    assert (found and found["process"]) == slow
    if found is not None:
        assert f"process {slow} on h{slow} is slow" in slow_host_warning(found)


def test_one_process_is_not_compared():
    assert slow_host(times(0.9)) is None
