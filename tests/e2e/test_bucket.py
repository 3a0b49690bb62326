"""Several processes, folds and exports with data and workdirs in an emulated bucket."""

import json
import socket
import time

import pytest
from bucket_server import BUCKET, bucket_server

from deeplab_jax.checkpointing.saved_states import saved_steps
from deeplab_jax.export.runtimes import load_exported
from deeplab_jax.files import as_path
from deeplab_jax.training.goodput import goodput, read_timeline
from deeplab_jax.training.writers import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def bucket(commands, monkeypatch, tmp_path):
    """Address of a bucket with the prepared dataset in `data`."""
    # By default etils takes TensorFlow's file systems where TensorFlow happens to be installed.
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    with bucket_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for path in commands.data_dir.rglob("*"):
            if path.is_file():
                target = as_path(f"gs://{BUCKET}/data") / path.relative_to(commands.data_dir)
                target.write_bytes(path.read_bytes())
        yield f"gs://{BUCKET}"


def start_two(commands, words):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        commands.start(
            *words,
            f"--coordinator={address}",
            "--num_processes=2",
            f"--process_id={number}",
            JAX_NUM_CPU_DEVICES="1",
        )
        for number in range(2)
    ]


def test_two_processes_resume_in_a_bucket_from_a_lost_host(commands, bucket, tmp_path):
    workdir, data = as_path(f"{bucket}/run"), f"data.data_dir={bucket}/data"
    words = commands.train_words(f"{bucket}/run", data)
    job = start_two(commands, words)
    while not saved_steps(workdir):
        assert all(process.poll() is None for process in job), job[0].communicate()
        time.sleep(0.2)
    for process in job:
        process.kill()
        process.communicate()
    # The lock of a host that is gone is taken over when its heartbeat is old.
    lock = json.loads((workdir / "lock.json").read_text())
    (workdir / "lock.json").write_text(json.dumps(lock | {"host": "another"}))
    before = max(saved_steps(workdir))
    said = [process.communicate(timeout=900)[1] for process in start_two(commands, words)]
    assert "took over from process" in said[0], said
    assert f"resuming from step {before}" in said[0]
    rows = read_rows(workdir)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "validation_mean_iou" in row] == [6, 12]
    assert max(saved_steps(workdir)) == 12
    assert goodput(read_timeline(workdir)).starts == 2
    assert len(list((tmp_path / "cache/datasets/gs").rglob(".copied.json"))) == 1
    # The ranked checkpoint is read, exported and copied back.
    output = f"{bucket}/network.stablehlo"
    words = ["export", f"--model={bucket}/run", "--format=stablehlo", f"--output={output}"]
    assert f"{output}: " in commands.run(*words).stdout
    assert "give another --output, or replace it" in commands.run(*words, status=2).stderr
    local = tmp_path / "network.stablehlo"
    local.write_bytes(as_path(output).read_bytes())
    assert len(load_exported(local).metadata.class_names) == 6
    words = [f"--model={bucket}/run", f"--data_dir={bucket}/data", f"--output={bucket}/evaluation"]
    commands.run("evaluate", "--dataset=shapes", "--split=val", *words)
    assert (as_path(f"{bucket}/evaluation") / "metrics.json").exists()


def test_folds_in_a_bucket(commands, bucket):
    words = commands.train_words(f"{bucket}/folds", f"data.data_dir={bucket}/data")
    said = commands.run(*words, "--folds=2").stdout
    assert "over 2 folds" in said
    found = json.loads((as_path(f"{bucket}/folds") / "cross_validation.json").read_text())
    assert len(found["mean_ious"]) == found["folds"] == 2
