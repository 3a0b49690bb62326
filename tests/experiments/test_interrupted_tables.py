"""A table and a grid that are killed go on, and give what an undisturbed run gives."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

CHECKPOINTS = "smoke/trainings/*/seed_0/checkpoints/*"
ROOT = pathlib.Path(__file__).parents[2]


def command(workdir, data_dir, *words):
    return [
        *(sys.executable, "-m", "experiments.run", *words),
        *("--preset=smoke", f"--workdir={workdir}", f"--data_dir={data_dir}"),
    ]


def run(workdir, data_dir, *words) -> str:
    done = subprocess.run(
        command(workdir, data_dir, *words), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def kill_after_a_checkpoint(workdir, data_dir, *words) -> None:
    """Starts the command and kills it when a training has saved, but not finished."""
    process = subprocess.Popen(
        command(workdir, data_dir, *words), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        while not any(path.name.isdigit() for path in workdir.glob(CHECKPOINTS)):
            assert process.poll() is None, process.stderr.read()[-2000:]
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()


def results(workdir) -> dict[str, object]:
    found = {}
    for path in sorted(workdir.glob("smoke/results/*/*/*.json")):
        metrics = json.loads(path.read_text())
        del metrics["settings"]
        found[str(path.relative_to(workdir))] = metrics
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("v3/table10", "--rows=1,2"),
        ("v3/table9", "--rows=1", "--grid", "model.output_stride=16,32"),
    ],
)
def test_a_killed_table_resumes(words, tmp_path):
    data_dir = tmp_path / "data"
    kill_after_a_checkpoint(tmp_path / "killed", data_dir, *words)
    assert not results(tmp_path / "killed")
    said = run(tmp_path / "killed", data_dir, *words)
    assert "resuming from step" in said
    run(tmp_path / "undisturbed", data_dir, *words)
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")
    assert len(results(tmp_path / "killed")) == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoints/*/*")}
    said = run(tmp_path / "killed", data_dir, *words)
    assert "are already finished" in said
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoints/*/*")}


@pytest.mark.slow
def test_submitted_to_local_processes(tmp_path):
    pytest.importorskip("submitit")
    words = ("v3/table9", "--rows=2,4", "--submit=local", "--processes=2")
    said = run(tmp_path, tmp_path / "data", *words)
    assert "local job" in said
    assert len(results(tmp_path)) == 2
    text = (tmp_path / "smoke/reports/v3-table9.md").read_text()
    # The smallest batch is the same for two rows.
    assert "Rows with results: 3 of 4." in text
