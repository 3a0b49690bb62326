import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from memory_bucket import use_memory_bucket
from stand_ins import write_workdir

from deeplab_jax import ops
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.export import _evenly_spaced, _find
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.runtimes import load_exported
from deeplab_jax.files import as_path
from deeplab_jax.heads import aspp


def test_images_in_the_directory_of_the_output_are_found(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(photos / name), np.zeros((2, 2, 3), np.uint8))
    # With --output=photos/network.onnx --verify=.
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in _find(".", 5)] == ["a.png", "b.png"]
    assert [path.name for path in _find("photos", 1)] == ["a.png"]
    assert _find(None, 5) == []


def test_images_for_calibration_are_evenly_spaced():
    paths = [Path(f"{number:03}.png") for number in range(250)]
    chosen = _evenly_spaced(paths, 100)
    assert len(chosen) == 100
    assert [chosen[0], chosen[50], chosen[-1]] == [paths[0], paths[125], paths[247]]
    assert _evenly_spaced(paths[:3], 100) == paths[:3]
    assert _evenly_spaced([], 100) == []


def test_a_folder_of_volumes_beside_images_is_refused(tmp_path):
    for name in ("photos/a.png", "scans/a.dcm", "scans/sub/b.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DeepLabError, match=r"scans/a\.dcm: a DICOM file contains"):
        _find(f"{tmp_path / 'photos'},{tmp_path / 'scans'}", 5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("run") / "workdir", ["sky", "tree", "road"])


@pytest.mark.slow
def test_a_file_that_was_compared_with_the_network(workdir, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/noise.png"), image)
    output = tmp_path / "network.onnx"
    pytest.importorskip("onnxruntime")
    arguments = [
        "export",
        f"--model={workdir}",
        "--format=onnx",
        f"--output={output}",
        "--argmax=outside",
        f"--verify={tmp_path / 'photos'}",
    ]
    assert run(arguments, Console()) == 0
    told = capsys.readouterr().out
    assert "takes uint8 RGB, any suitable size (16·k + 1), any batch; returns logits" in told
    shares = [float(share) for share in re.findall(r"same class at (\S+) % of pixels", told)]
    assert len(shares) == 3
    assert min(shares) > 99.9
    for size in ("65×65, batch 1", "49×33, batch 2", "97×113, batch 3"):
        assert size in told
    assert load_exported(output).metadata.class_names == ("sky", "tree", "road")
    assert run(arguments, Console()) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--format=onnx", "--output=x"], "--model must be given"),
        (["--model=m", "--format=pickle", "--output=x"], "pickle"),
        (["--model=m", "--format=onnx", "--output=x", "--size=513"], "as in 513x513"),
        (["--model=m", "--format=onnx", "--output=x", "--batch=few"], "a whole number above 0"),
        (["--model=m", "--format=onnx", "--output=/dev/null/x"], "/dev/null cannot be written"),
        (["--model=m", "--format=onnx", "--output=..", "--overwrite"], ".. is a directory"),
        (["--model=m", "--format=onnx", "--output=x", "photos"], "did you mean --verify=photos"),
        (["--model=m", "--format=onnx", "--output=x", "--verify=none"], "no such file or folder"),
        (["--model=m", "--format=onnx", "--output=x", "--calibrate=a"], "requires --format=tflite"),
        (["--model=m", "--format=onnx", "--output=x", "--verify_size=65x65"], "--verify=photos"),
        (["--model=m", "--format=coreml", "--output=x", "--verify=."], "Apple devices only"),
        (["--model=m", "--format=onnx", "--output=x", "--verify_limit=0"], "--verify_limit=0"),
    ],
)
def test_mistakes_are_reported_before_any_work(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["export", *arguments], Console()) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "verify_size", "reason"),
    [("any", "65x65,64x70", ["49x65 or 65x81", "k · 16 + 1"]), ("50x66", "65x65", ["50x66"])],
)
def test_sizes_that_the_file_does_not_take(workdir, tmp_path, capsys, size, verify_size, reason):
    cv2.imwrite(str(tmp_path / "noise.png"), np.zeros((50, 70, 3), np.uint8))
    arguments = [
        "export",
        f"--model={workdir}",
        "--format=stablehlo",
        f"--output={tmp_path / 'network'}",
        f"--size={size}",
        f"--verify={tmp_path / 'noise.png'}",
        f"--verify_size={verify_size}",
    ]
    assert run(arguments, Console()) == 2
    told = capsys.readouterr().err
    for part in reason:
        assert part in told
    assert not (tmp_path / "network").exists()


def test_a_file_that_differs_ends_the_command(workdir, tmp_path, capsys, monkeypatch):
    """Stands for an operation that another runtime does otherwise."""
    cv2.imwrite(str(tmp_path / "noise.png"), np.zeros((50, 70, 3), np.uint8))
    average = aspp.average
    network = ["export", f"--model={workdir}", "--format=stablehlo", "--size=65x65"]
    file = [f"--output={tmp_path / 'network'}", f"--verify={tmp_path / 'noise.png'}"]

    def wrong_in_files(features, *arguments):
        return average(features, *arguments) * (-40.0 if ops.exporting() else 1.0)

    monkeypatch.setattr(aspp, "average", wrong_in_files)
    assert run([*network, *file], Console()) == 2
    message = capsys.readouterr().err
    assert "65x65" in message
    assert str(tmp_path / "network") in message
    monkeypatch.setattr(aspp, "average", average)
    assert run([*network, *file, "--overwrite"], Console()) == 0


def test_a_file_that_differs_is_also_written_to_a_bucket(workdir, tmp_path, capsys, monkeypatch):
    use_memory_bucket(monkeypatch)
    cv2.imwrite(str(tmp_path / "noise.png"), np.zeros((50, 70, 3), np.uint8))
    output = "s3://bucket/files/network"
    as_path(output).parent.mkdir(parents=True)
    network = ["export", f"--model={workdir}", "--format=stablehlo", "--size=65x65"]
    found = SimpleNamespace(agrees=False)
    monkeypatch.setattr("deeplab_jax.export.verification.verify", lambda *given: found)
    file = [f"--output={output}", f"--verify={tmp_path / 'noise.png'}"]
    assert run([*network, *file], Console()) == 2
    printed, error = capsys.readouterr()
    assert f"{output}: " in printed
    assert f"{output} and the network predict different classes" in error
    assert as_path(output).exists()


def test_sizes_with_misaligned_maps_are_reported(workdir, tmp_path, capsys):
    arguments = ["export", f"--model={workdir}", "--format=stablehlo", "--size=64x65"]
    assert run([*arguments, f"--output={tmp_path / 'network'}"], Console()) == 0
    told = capsys.readouterr().out
    assert "64×65" in told
    assert "16·k + 1" in told
