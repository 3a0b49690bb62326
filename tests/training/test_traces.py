"""Requests for profiler traces; the profiler itself runs in tests/e2e/test_watching.py."""

import os
import signal
import time

import jax
import pytest
from outage import ERRORS, failing
from reporters import RecordingReporter

from deeplab_jax.training import traces as module
from deeplab_jax.training.traces import Traces


@pytest.fixture
def profiler(monkeypatch):
    """List of the folders to which traces were written, and None for each end."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", calls.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(None))
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return calls


def run(traces, steps, log_every=5, at=lambda step: None):
    for step in range(1, steps + 1):
        traces.before_step(step, step - 1)
        traces.after_step(step, 0.0)
        if step % log_every == 0:
            traces.agree(step, traces.agreed_start(step, log_every))
        at(step)


def test_profile_traces_steps_3_to_7(tmp_path, profiler):
    reporter = RecordingReporter()
    with Traces(tmp_path, True, reporter) as traces:
        run(traces, 6)
        assert profiler == [str(tmp_path / "profile")]
        traces.before_step(7, 6)
        traces.after_step(7, 0.0)
    assert profiler == [str(tmp_path / "profile"), None]
    assert reporter.messages == [f"profiler trace of the steps up to 7: {tmp_path / 'profile'}"]


def test_a_trace_requested_before_the_profile_delays_it(tmp_path, profiler):
    with Traces(tmp_path, True, RecordingReporter()) as traces:
        os.kill(os.getpid(), signal.SIGUSR1)
        run(traces, 20)
    requested, profile = tmp_path / "traces" / "step_000001", tmp_path / "profile"
    assert profiler == [str(requested), None, str(profile), None]


def test_a_signal_requests_a_trace_of_the_next_steps(tmp_path, profiler):
    before = signal.getsignal(signal.SIGUSR1)
    with Traces(tmp_path, False, RecordingReporter()) as traces:
        run(traces, 20, at=lambda step: step == 3 and os.kill(os.getpid(), signal.SIGUSR1))
    assert profiler == [str(tmp_path / "traces" / "step_000004"), None]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_file_requests_a_trace_after_the_next_log_line(tmp_path, profiler):
    request = tmp_path / "trace"

    def at(step):
        if step == 7:
            request.touch()
            traces._found.wait(10)

    with Traces(tmp_path, False, RecordingReporter()) as traces:
        run(traces, 30, at=at)
    assert profiler == [str(tmp_path / "traces" / "step_000011"), None]
    assert not request.exists()


def test_a_file_that_requests_a_trace_during_another_trace_delays_it(tmp_path, profiler):
    with Traces(tmp_path, True, RecordingReporter()) as traces:
        run(traces, 20, at=lambda step: step == 3 and traces._found.set())
    requested, profile = tmp_path / "traces" / "step_000008", tmp_path / "profile"
    assert profiler == [str(profile), None, str(requested), None]


def test_all_processes_begin_at_the_step_that_process_0_published(tmp_path, profiler, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with Traces(tmp_path, False, RecordingReporter()) as traces:
        traces._found.set()
        agreed = traces.agreed_start(10, 5)
        assert agreed == 15
        traces.agree(10, agreed)
        traces.before_step(11, 0)
        traces.agree(15, traces.agreed_start(15, 5))
        traces.before_step(16, 5)
    assert profiler == [str(tmp_path / "traces" / "step_000016" / "process_0"), None]


def test_a_trace_that_fails_does_not_end_the_training(tmp_path, profiler, monkeypatch):
    def fail(folder):
        raise RuntimeError("only one profile may be run at a time")

    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    reporter = RecordingReporter()
    with Traces(tmp_path, True, reporter) as traces:
        run(traces, 10)
    assert reporter.warnings == [
        "could not write a profiler trace: only one profile may be run at a time; "
        "training continues"
    ]


def test_a_running_trace_ends_with_the_training(tmp_path, profiler):
    with Traces(tmp_path, True, RecordingReporter()) as traces:
        run(traces, 4)
    assert profiler[-1] is None


@pytest.mark.parametrize("error", ERRORS)
def test_a_file_still_requests_a_trace_after_an_outage(tmp_path, profiler, monkeypatch, error):
    request = tmp_path / "trace"
    with Traces(tmp_path, False, RecordingReporter()) as traces:
        with failing(monkeypatch, request.name, "is_file", error) as count:
            ends = time.monotonic() + 20
            while count() < 2 and time.monotonic() < ends:
                time.sleep(0.01)
        assert count() >= 2
        request.touch()
        assert traces._found.wait(20)
