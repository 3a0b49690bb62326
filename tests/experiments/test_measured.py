"""Files of measurements: origin and format."""

import csv
import subprocess

from experiments import measured


def test_rows_state_the_machine_and_the_commit(monkeypatch, tmp_path):
    machine = {"processor": "Nine 9000 48-Core", "cores": 3, "python": "3.11.7"}
    monkeypatch.setattr("deeplab_jax.benchmark.machine.describe_machine", lambda: machine)
    answer = subprocess.CompletedProcess([], 0, "abc1234\n")
    monkeypatch.setattr(measured.subprocess, "run", lambda *_, **__: answer)
    hardware = measured.processor(["jax"])
    assert hardware.startswith("Nine 9000, 3 cores, Python 3.11, jax ")
    origin = measured.origin(hardware)
    assert (origin["commit"], origin["hardware"]) == ("abc1234", hardware)
    path = tmp_path / "new" / "table.csv"
    measured.write(path, [("a, b", "time", "1.5", "s", "command", *origin.values())])
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["row"] == "a, b"
    assert row["commit"] == "abc1234"
    assert row["date"] == origin["date"]
