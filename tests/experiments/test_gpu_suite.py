"""The suite for GPUs at toy size: rows, going on, and a line that a cut left unfinished."""

import json
import subprocess
import sys
from pathlib import Path


def toy(output):
    command = [sys.executable, "-m", "experiments.gpu_suite", "--toy", f"--output={output}"]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_a_second_call_measures_only_what_is_missing(tmp_path):
    assert len(toy(tmp_path).splitlines()) == 6
    path = tmp_path / "kernel_gradients.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    assert {row["candidate"] for row in rows} == {"xla", "products", "subgrids"}
    assert all(row["milliseconds"] > 0 and row["device"] and row["jax"] for row in rows)
    path.write_text("".join(lines[:5]) + lines[5][:20])
    assert len(toy(tmp_path).splitlines()) == 1
    assert len(path.read_text().splitlines()) == 6
