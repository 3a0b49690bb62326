"""Checkpoints are restored on other numbers of devices and processes."""

import itertools
import os
import pathlib
import socket
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("checkpoint_process.py")


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run(action, workdir, step, *, processes=1, devices=1, spatial=1, fsdp=False):
    """Runs an action in several processes with several devices each."""
    data = processes * devices // spatial
    words = [sys.executable, SCRIPT, action, workdir, step, data, spatial, fsdp]
    port = free_port()
    job = [
        subprocess.Popen(
            list(map(str, words)),
            env=os.environ
            | {"JAX_NUM_CPU_DEVICES": str(devices)}
            | address(number, processes, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(processes)
    ]
    said = [process.communicate(timeout=200)[0] for process in job]
    assert [process.returncode for process in job] == [0] * processes, said


def address(number, processes, port):
    if processes == 1:
        return {}
    return {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(number),
    }


@pytest.mark.slow
def test_fewer_devices_restore_what_a_mesh_of_eight_saved(tmp_path):
    run("save", tmp_path, 3, devices=8, spatial=2, fsdp=True)
    run("restore", tmp_path, 3, devices=1)


@pytest.mark.slow
def test_a_run_moves_from_mesh_to_mesh(tmp_path):
    layouts = [
        {"devices": 8, "fsdp": True},
        {"devices": 8, "spatial": 4},
        {"devices": 2, "fsdp": True},
        {"devices": 1},
        {"devices": 8, "spatial": 2, "fsdp": True},
    ]
    for step, (before, after) in enumerate(itertools.pairwise(layouts), start=1):
        run("save", tmp_path, step, **before)
        run("restore", tmp_path, step, **after)


@pytest.mark.slow
def test_a_run_moves_from_two_processes_to_one_to_four(tmp_path):
    run("save", tmp_path, 1, processes=2, devices=2, fsdp=True)
    run("restore", tmp_path, 1)
    run("save", tmp_path, 2)
    run("restore", tmp_path, 2, processes=4, fsdp=True)
    run("save", tmp_path, 3, processes=4, spatial=2)
    run("restore", tmp_path, 3, processes=2, devices=2, spatial=2, fsdp=True)
