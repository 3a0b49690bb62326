"""Mistakes get one line that says what is wrong, exit status 2, and leave nothing half-written."""

import ctypes
import os
import pathlib
import shutil

import pytest

from deeplab_jax.checkpointing import open_checkpoints


@pytest.mark.parametrize("process", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.output_strid=8"], "did you mean 'model.output_stride'?"),
        (["model.output_stride=7"], "must be one of 4, 8, 16, 32"),
        (["training.batch_size=many"], "training.batch_size must be of type int"),
        (["data.name=shaps"], "shapes"),
        (["data.train_split=training"], "train"),
        (["strict_crop=True", "augmentation.crop_size=(33,50)"], "33×49 and 33×65"),
        (["optimizer.name=sdg"], "did you mean 'sgd'?"),
        (["training.init_from=nowhere"], "nowhere"),
        (["model.image_pooling=global", "model.ghost_batch_size=1"], "model.ghost_batch_size=1"),
        (["schedule.warmup_steps=-1"], "schedule.warmup_steps=-1"),
    ],
)
def test_a_wrong_config_gives_a_one_line_error(
    commands, tmp_path, read_lines, overrides, said, process
):
    words = commands.train_words(tmp_path / "run", *overrides)
    failed = (commands.run if process else commands.run_here)(*words, status=2)
    assert said in read_lines(failed.stderr)[-1]
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("network.tflite", b"TFL3", "the file is not a TFLite file"),
        ("weights.safetensors", b"\xff" * 64, "weights.safetensors"),
        ("weights.npz", b"PK", "unknown format .npz; legal: .tflite"),
    ],
)
def test_broken_weights_are_refused(commands, tmp_path, read_lines, name, content, said):
    source, output = tmp_path / name, tmp_path / "model"
    source.write_bytes(content)
    failed = commands.run_here("convert", source, f"--output={output}", status=2)
    (line,) = read_lines(failed.stderr)
    assert said in line
    assert str(source) in line
    assert not output.exists()


def test_another_config_does_not_enter_a_workdir(commands, trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    words = commands.train_words(workdir, "training.batch_size=4")
    failed = commands.run_here(*words, status=2)
    assert "training.batch_size: 8 → 4" in failed.stderr


def test_a_preview_ignores_a_config_beside_the_picture(commands, tmp_path):
    (tmp_path / "config.json").write_text('{"unknown": 1}')
    words = commands.train_words(tmp_path / "run", "training.batch_size=2")
    words = [word for word in words if not word.startswith("--workdir")]
    commands.run_here(*words, f"--preview={tmp_path / 'batch.png'}")
    assert (tmp_path / "batch.png").is_file()


def test_an_indivisible_batch_size_names_the_nearest(commands, tmp_path):
    words = commands.train_words(tmp_path / "run", "training.batch_size=10")
    failed = commands.run(*words, status=2, JAX_NUM_CPU_DEVICES="8")
    assert "batch_size=10 is not a positive multiple" in failed.stderr
    assert "nearest legal values: 8, 16" in failed.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_loss_that_turns_nan_stops_and_keeps_the_last_good_checkpoint(commands, tmp_path):
    workdir = tmp_path / "run"
    explosive = (
        "optimizer.name=sgd",
        "schedule.base_learning_rate=1e25",
        "checkpoint.every_steps=1",
    )
    failed = commands.run(*commands.train_words(workdir, *explosive), status=2)
    assert "became nan at step" in failed.stderr or "became inf at step" in failed.stderr
    with open_checkpoints(workdir) as manager:
        assert manager.all_steps()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=4m"):
        pytest.skip(f"cannot mount a small file system: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), 2)


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(commands, small_disk, tmp_path):
    workdir = small_disk / "run"
    words = commands.train_words(workdir)
    failed = commands.run(*words, status=2)
    assert "could not save a checkpoint" in failed.stderr
    assert "free disk space" in failed.stderr
    kept = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert all((path / "variables").is_dir() for path in kept)
    assert isinstance(tmp_path, pathlib.Path)
