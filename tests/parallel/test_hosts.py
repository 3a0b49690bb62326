"""How processes find each other, and what happens where they do not."""

import dataclasses
import socket
import subprocess
import sys

import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel import Addresses
from deeplab_jax.parallel.hosts import VARIABLES, alone, local_devices


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", 2, None), "must be given together"),
        ((None, None, 1), "must be given together"),
        (("a", 2, 0), "host:port"),
        (("a:1", 2, 2), "0..1"),
        (("a:1", 0, 0), "num_processes=0"),
    ],
)
def test_illegal_address_errors_state_the_legal_form(given, message):
    with pytest.raises(DeepLabError, match=message):
        Addresses(*given)


def test_environment_variables_complete_the_flags():
    environment = dict(zip(VARIABLES, ("a:1", "4", "3"), strict=True))
    assert Addresses().or_of(environment) == Addresses("a:1", 4, 3)
    given = Addresses("b:2", 2, 0)
    assert given.or_of(environment) == given
    # A cluster tells the rest.
    assert Addresses().or_of({VARIABLES[0]: "a:1"}) == Addresses()
    with pytest.raises(DeepLabError, match="whole number"):
        Addresses().or_of(environment | {VARIABLES[1]: "four"})
    with pytest.raises(DeepLabError, match="must be given together"):
        Addresses().or_of({VARIABLES[1]: "4"})


def test_slurm_gives_a_process_all_the_devices_that_are_its_own():
    assert alone({"SLURM_NTASKS": "1"})
    assert not alone({"SLURM_NTASKS": "2"})
    assert not alone({})
    one_a_node = {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "4"}
    assert local_devices(one_a_node) == [0, 1, 2, 3]
    assert local_devices(one_a_node | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}) is None
    assert local_devices({}) is None


PROGRAM = """
import os, sys, time
from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel import Addresses, failures, from_first_host, joined_hosts, wait_for_hosts

failures.TOGETHER_SECONDS = 1
address, count, process, failing, seconds = sys.argv[1:]

def end(message):
    print("ended:", message, flush=True)
    os._exit(3)

try:
    addresses = Addresses(address, int(count), int(process))
    with joined_hosts(addresses, start_seconds=int(seconds), end=end) as processes:
        assert from_first_host(int(process) + 7) == 7
        if process == failing:
            raise DeepLabError("the disk is full")
        wait_for_hosts("work")
        if failing == "JobInterrupt":
            try:
                raise failures.JobInterrupt
            finally:
                # As process 0, which closes the writers of metrics.
                time.sleep(6 if process == "0" else 0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    os._exit(130)
except DeepLabError as error:
    print("failed:", error, flush=True)
    os._exit(2)
print("good:", processes)
"""


@dataclasses.dataclass(frozen=True)
class Ended:
    status: int
    said: str


def run(count, *, failing="none", present=None, seconds=60):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, *map(str, (count, process, failing, seconds))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for process in (present if present is not None else range(count))
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in running]
    return [Ended(process.returncode, text) for process, text in zip(running, said, strict=True)]


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")


def test_processes_join_and_leave_a_job():
    assert [(one.status, one.said[-7:]) for one in run(2)] == [(0, "good: 2")] * 2


@pytest.mark.parametrize("failing", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_one_failure_ends_all_with_its_message(failing):
    ended = run(2, failing=str(failing))
    assert (ended[failing].status, ended[1 - failing].status) == (2, 3)
    assert "failed: the disk is full" in ended[failing].said
    other = ended[1 - failing].said
    assert f"ended: process {failing} of the job failed: the disk is full" in other


@pytest.mark.slow
def test_processes_that_stop_together_wait_for_process_0_to_close_its_writers():
    ended = run(2, failing="JobInterrupt")
    assert [(one.status, one.said[-11:]) for one in ended] == [(130, "interrupted")] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("present", "message"),
    [(0, "not all other processes started"), (1, "process 0 does not answer")],
)
def test_a_process_that_never_starts_is_reported(present, message):
    (ended,) = run(2, present=[present], seconds=2)
    assert ended.status == 3
    assert f"process {present} of 2 waited 2 s: " in ended.said
    assert message in ended.said
