"""Tables that are killed resume with the same results; several processes share one table."""

import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import sys
import time

import filelock
import jax
import pytest
from reporters import RecordingReporter

from deeplab_jax.errors import DeepLabError
from experiments import batch, jobs
from experiments.storage import Request, write_json

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


class ReleasingReporter(RecordingReporter):
    """Releases a lock, as another process would, when this process reports that it waits."""

    def __init__(self, lock: filelock.FileLock) -> None:
        super().__init__()
        self.lock = lock

    def message(self, text: str) -> None:
        super().message(text)
        if text.startswith("waiting for another process"):
            self.lock.release()


def store_result(runs, case, workdir) -> None:
    """Stands for an evaluation. During it, the job is locked."""
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(f"{workdir}.lock").acquire(timeout=0)
    write_json(runs.storage.result(case.training, runs.seed, case.strategy), {"mean_iou": 0.5})


def test_jobs_of_other_processes_are_run_last_and_not_repeated(tmp_path, monkeypatch):
    opened = batch.open_request(Request("table", "v3/table5", "camvid"), tmp_path)
    first, second, third = cases = opened.cases[:3]
    workdirs = [opened.storage.training(case.training, 0) for case in cases]
    locks = [filelock.FileLock(f"{workdir}.lock") for workdir in workdirs[:2]]
    for lock in locks:
        pathlib.Path(lock.lock_file).parent.mkdir(parents=True)
        lock.acquire()
    trained = []

    def train(config, workdir, **_) -> None:
        trained.append(workdir)
        if workdir == workdirs[2]:
            # In the meantime, another process finishes the first job.
            write_json(opened.storage.result(first.training, 0, first.strategy), {})
            locks[0].release()
        else:
            raise DeepLabError("no data")

    monkeypatch.setattr("deeplab_jax.train", train)
    monkeypatch.setattr(jobs._Runs, "evaluate", store_result)
    monkeypatch.setattr(batch, "write_reports", lambda *_, **__: None)
    reporter = ReleasingReporter(locks[1])
    with pytest.raises(DeepLabError, match=f"1 of 3 .* {re.escape(second.row.label)}, seed 0: no"):
        batch.run_here(opened, cases, reporter)
    assert trained == [workdirs[2], workdirs[1]]
    assert opened.storage.read_result(third, 0) == {"mean_iou": 0.5}
    moved = [text for text in reporter.messages if "is moved to the end" in text]
    assert len(moved) == 2


def test_a_job_without_enough_memory_does_not_end_the_table(tmp_path, monkeypatch):
    opened = batch.open_request(Request("table", "v3/table5", "camvid"), tmp_path)
    first, second = cases = opened.cases[:2]
    trained = []

    def train(config, workdir, **_) -> None:
        trained.append(workdir)
        if len(trained) == 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nof 99 GiB")

    monkeypatch.setattr("deeplab_jax.train", train)
    monkeypatch.setattr(jobs._Runs, "evaluate", store_result)
    monkeypatch.setattr(batch, "write_reports", lambda *_, **__: None)
    failed = rf"1 of 2 .* {re.escape(first.row.label)}, seed 0: RESOURCE_EXHAUSTED: Out of memory$"
    with pytest.raises(DeepLabError, match=failed):
        batch.run_here(opened, cases, RecordingReporter())
    assert opened.storage.read_result(second, 0) == {"mean_iou": 0.5}


def test_a_batch_that_cannot_be_divided_among_all_devices_uses_fewer(tmp_path, monkeypatch):
    opened = batch.open_request(Request("table", "v3/table5", "smoke"), tmp_path)
    training = next(case.training for case in opened.cases if case.training)
    config, reporter = training.new_config(), RecordingReporter()
    config.training.batch_size, config.training.accumulation_steps = 4, 1
    for found, used in (
        ("a", None),
        ("abcd", None),
        ("abcdefgh", list("abcd")),
        ("abc", ["a", "b"]),
    ):
        monkeypatch.setattr(jax, "devices", functools.partial(list, found))
        assert jobs._devices(training, config, reporter) == used
    assert reporter.messages[0].startswith("4 of 8 devices are used, because 4 images")
    two = dataclasses.replace(training, devices=2)
    assert jobs._devices(two, config, reporter) == ["a", "b"]
    assert len(reporter.messages) == 2
