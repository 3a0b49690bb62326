import re

import cv2
import numpy as np
import pytest
from stand_ins import write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.deploy.loader import load_exported


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
    assert "uint8 RGB, any suitable size, any batch, gives logits" in told
    shares = [float(share) for share in re.findall(r"same class at (\S+) % of pixels", told)]
    assert len(shares) == 3
    assert min(shares) > 99.9
    for size in ("65×65, batch 1", "49×33, batch 2", "33×49, batch 3"):
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
        (["--model=m", "--format=onnx", "--output=x", "--batch=few"], "a number from 1 on"),
        (["--model=m", "--format=onnx", "--output=x", "photos"], "did you mean --verify=photos"),
        (["--model=m", "--format=onnx", "--output=x", "--verify=none"], "no such file or folder"),
        (["--model=m", "--format=onnx", "--output=x", "--calibrate=a"], "is of --format=tflite"),
    ],
)
def test_mistakes_are_told_at_once(arguments, reason, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["export", *arguments], Console()) == 2
    assert reason in capsys.readouterr().err
