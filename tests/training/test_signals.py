import signal
import threading

import pytest

from deeplab_jax.training.train import interruption

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class ActedError(Exception):
    """Error that the previous handlers raise."""


@pytest.fixture(autouse=True)
def handlers():
    """Installs handlers that raise, so that no signal ends the test run; returns them."""

    def act(number, frame):
        raise ActedError

    before = {number: signal.signal(number, act) for number in SIGNALS}
    yield dict.fromkeys(SIGNALS, act)
    for number, handler in before.items():
        signal.signal(number, handler)


def current():
    return {number: signal.getsignal(number) for number in SIGNALS}


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts(first, second, handlers):
    with interruption() as asked_to_stop:
        assert not asked_to_stop()
        signal.raise_signal(first)
        assert asked_to_stop()
        with pytest.raises(ActedError):
            signal.raise_signal(second)
    assert current() == handlers


def test_an_error_puts_the_handlers_back(handlers):
    def fail():
        with interruption():
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        fail()
    assert current() == handlers


def test_a_handler_that_was_not_installed_from_python_becomes_the_default(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with interruption():
        pass
    monkeypatch.undo()
    assert current() == dict.fromkeys(SIGNALS, signal.SIG_DFL)


def test_other_threads_leave_signal_handlers_unchanged(handlers):
    answers = []

    def run():
        with interruption() as asked_to_stop:
            answers.append((asked_to_stop(), current() == handlers))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert answers == [(False, True)]
