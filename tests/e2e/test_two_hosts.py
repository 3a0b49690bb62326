"""Several processes over loopback train and evaluate as one does."""

import json
import signal
import socket
import time

import pytest

from deeplab_jax.training.writers import read_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def together(commands):
    """Runs the same words in several processes; returns (status, stdout, stderr) of each."""

    def run(*words, processes=2, devices=1, interrupt=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        job = [
            commands.start(
                *words,
                f"--coordinator={address}",
                f"--num_processes={processes}",
                f"--process_id={number}",
                JAX_NUM_CPU_DEVICES=str(devices),
            )
            for number in range(processes)
        ]
        if interrupt is not None:
            interrupt(job)
        said = [process.communicate(timeout=600) for process in job]
        return [(process.returncode, *texts) for process, texts in zip(job, said, strict=True)]

    return run


def rows_of(workdir, name):
    return [row[name] for row in read_rows(workdir) if name in row]


def test_two_hosts_train_as_one_process(commands, trained, together, tmp_path):
    workdir = tmp_path / "run"
    words = commands.train_words(workdir, "parallel.spatial=2")
    first, second = together(*words, devices=2)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    # Only the first process prints results. Threads of Gloo, which carries sums between CPUs, print
    # the number of connected processes, sometimes into each other's lines.
    assert "mean IoU" in first[1]
    others = [line for line in second[1].splitlines() if "[Gloo]" not in line]
    assert not "".join(others).strip(" 0123456789"), others
    assert "in 2 processes, mesh data=2 × spatial=2" in first[2]
    losses, alone = rows_of(workdir, "loss"), rows_of(trained, "loss")
    assert len(losses) == len(alone) == 12
    assert losses[:5] == pytest.approx(alone[:5], abs=1e-3)
    for name in ("model.json", "curves.png", "contact_sheet.png"):
        assert (workdir / name).is_file()
    (start,) = json.loads((workdir / "manifest.json").read_text())
    assert start["processes"] == 2
    # One process takes the checkpoint of two up.
    resumed = commands.run(*words[:-1])
    assert "all 12 steps are done already" in resumed.stderr


@pytest.mark.parametrize(
    ("processes", "devices", "spatial"), [(2, 2, 1), (2, 1, 2), (2, 4, 2), (4, 2, 4)]
)
def test_every_image_counts_once(
    commands, trained, together, tmp_path, processes, devices, spatial
):
    """Seven images, three a batch, on layouts that split them unevenly."""
    words = ["evaluate", f"--model={trained}", "--dataset=shapes", "--split=val"]
    words += [f"--data_dir={commands.data_dir}", "--batch_size=3"]
    commands.run(*words, f"--output={tmp_path / 'alone'}")
    here = [*words, f"--output={tmp_path / 'here'}", f"--spatial={spatial}"]
    ended = together(*here, processes=processes, devices=devices)
    assert [status for status, *_ in ended] == [0] * processes, ended
    alone, metrics = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "here")
    )
    assert metrics["num_images"] == alone["num_images"] == 7
    total, expected = (sum(map(sum, each["confusion_matrix"])) for each in (metrics, alone))
    assert total == expected
    assert metrics["mean_iou"] == pytest.approx(alone["mean_iou"], abs=1e-3)


def test_one_that_is_asked_to_stop_stops_all(commands, together, tmp_path):
    workdir = tmp_path / "run"

    def interrupt(job):
        while not any(row["step"] >= 3 for row in read_rows(workdir)):
            assert all(process.poll() is None for process in job)
            time.sleep(0.05)
        job[1].send_signal(signal.SIGTERM)

    words = commands.train_words(workdir, "training.num_steps=2000", "evaluation.every_steps=2000")
    ended = together(*words, interrupt=interrupt)
    assert [status for status, *_ in ended] == [130, 130]
    assert "the same command resumes the run" in ended[0][2]
    stopped = max(row["step"] for row in read_rows(workdir))
    assert (workdir / "checkpoints" / str(stopped)).is_dir()


def test_an_error_on_one_host_is_raised_on_all(commands, together, tmp_path):
    """A workdir of another run: process 0 finds it, the others wait for it."""
    workdir = tmp_path / "run"
    words = commands.train_words(workdir)
    workdir.mkdir()
    (workdir / "config.json").write_text('{"seed": 7}')
    (workdir / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    first, second = together(*words)
    assert (first[0], second[0]) == (2, 3)
    assert "has a run with another config" in first[2]
    assert "process 0 of the job failed" in second[2]
    assert "has a run with another config" in second[2]
