"""Metrics, goodput and traces of a real run, and the host that two processes wait for."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from deeplab_jax.training.goodput import goodput, read_timeline
from deeplab_jax.training.writers import read_rows

pytestmark = pytest.mark.slow


def wait_for_step(process, workdir, step):
    while not any(row["step"] >= step for row in read_rows(workdir)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_a_killed_run_reports_goodput_and_writes_requested_traces(commands, tmp_path):
    workdir = tmp_path / "run"
    words = commands.train_words(
        workdir, "training.num_steps=400", "evaluation.every_steps=400", "log_every_steps=2"
    )
    with commands.start(*words) as process:
        wait_for_step(process, workdir, 8)
        process.kill()
    with commands.start(*words) as process:
        wait_for_step(process, workdir, 20)
        process.send_signal(signal.SIGUSR1)
        while not list((workdir / "traces").glob("step_*/**/*.xplane.pb")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        (workdir / "trace").touch()
        while (workdir / "trace").exists() or len(list((workdir / "traces").iterdir())) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 130, said
    assert said.count("profiler trace of the steps up to") == 2
    found = goodput(read_timeline(workdir))
    assert found.starts == 2
    assert 0 < found.fraction < 1
    assert found.longest_start_up < found.wall
    row = next(row for row in reversed(read_rows(workdir)) if "loss" in row)
    assert {"input_wait_fraction", "goodput", "flops_utilization_of_measured_rate"} <= row.keys()
    steps = [row["step"] for row in read_rows(workdir)]
    assert steps == sorted(set(steps))


SLOW_INPUT = """
import sys, time
from deeplab_jax.training import setup
before = setup.training_batches
def slow(*arguments, **keywords):
    for batch in before(*arguments, **keywords):
        time.sleep(3)
        yield batch
setup.training_batches = slow
from deeplab_jax.cli.main import run_process
sys.argv[0] = "deeplab-jax"
run_process()
"""


def test_a_host_that_reads_slowly_is_named(commands, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = commands.train_words(tmp_path / "run", "training.num_steps=6", "log_every_steps=2")
    words += [f"--coordinator={address}", "--num_processes=2"]
    with (
        commands.start(*words, "--process_id=0", JAX_NUM_CPU_DEVICES="1") as first,
        subprocess.Popen(
            [sys.executable, "-c", SLOW_INPUT, *words, "--process_id=1"],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
            stderr=subprocess.PIPE,
            text=True,
        ) as second,
    ):
        said = first.communicate(timeout=600)[1]
        second.communicate(timeout=600)
    assert first.returncode == 0, said
    assert "process 1 on" in said
    assert "is slow: its devices wait for input" in said
    assert "process 0 on" not in said
