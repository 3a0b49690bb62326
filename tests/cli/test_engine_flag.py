"""`predict` with another runtime, and of exported files."""

import numpy as np
import pytest
from PIL import Image
from stand_ins import write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.files import PROGRAM_CACHE

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and its ONNX file of one size, two photographs, and masks of JAX."""
    folder = tmp_path_factory.mktemp("engines")
    write_workdir(folder / "model", ["sky", "tree", "road"])
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for name, size in {"a.png": (40, 50), "b.png": (65, 33)}.items():
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "photos" / name)
    words = ["export", f"--model={folder / 'model'}", "--format=onnx", "--size=49x65"]
    assert run([*words, f"--output={folder / 'network.onnx'}"], Console()) == 0
    return folder


@pytest.fixture
def predict(folder, tmp_path, capsys, monkeypatch):
    """Runs the command on the model or a file; returns exit status and stderr."""
    monkeypatch.setenv(PROGRAM_CACHE, str(folder / "programs"))

    def predict(model, *arguments, output="out"):
        words = ["predict", f"--model={folder / model}", f"--output={tmp_path / output}"]
        status = run([*words, *map(str, arguments)], Console())
        return status, capsys.readouterr().err

    return predict


def masks(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("?.png"))}


def test_the_files_are_those_of_jax(predict, folder, tmp_path):
    for engine in ("jax", "onnx"):
        status, _ = predict("model", f"--engine={engine}", folder / "photos", output=engine)
        assert status == 0
    names = [{path.name for path in (tmp_path / engine).iterdir()} for engine in ("jax", "onnx")]
    assert names[0] == names[1] == {"a.png", "a_overlay.png", "b.png", "b_overlay.png"}
    pairs = zip(masks(tmp_path / "jax").values(), masks(tmp_path / "onnx").values(), strict=True)
    for expected, found in pairs:
        assert expected.shape == found.shape
        assert np.mean(expected == found) > 0.999
    assert len(list((folder / "programs").glob("*.onnx.engine"))) == 1


def test_a_file_predicts_like_its_model(predict, folder, tmp_path):
    photo = folder / "photos" / "a.png"
    assert predict("network.onnx", photo)[0] == 0
    assert predict("model", photo, output="jax")[0] == 0
    assert masks(tmp_path / "out")["a.png"].shape == (40, 50)


@pytest.mark.parametrize(
    ("model", "flags", "reason"),
    [
        ("network.onnx", [], "b.png: "),
        ("network.onnx", ["--flip"], "--argmax=outside"),
        ("network.onnx", ["--probabilities"], "--argmax=outside"),
        ("network.onnx", ["--scales=0.5,1"], "supports only the scale 1"),
        ("network.onnx", ["--output_stride=8"], "supports only output stride 16"),
        ("network.onnx", ["--engine=tflite"], "requires engine=onnx"),
        ("network.onnx", ["--tile=33x33"], "--tile=49x65"),
        ("network.onnx", ["--checkpoint=last"], "omit checkpoint and ema"),
        ("model", ["--engine=oxnn"], "jax|onnx|tflite"),
    ],
)
def test_refusals_are_one_line_and_nothing_is_written(
    predict, folder, tmp_path, model, flags, reason
):
    photos = folder / "photos" / ("a.png" if flags else "")
    status, error = predict(model, *flags, photos)
    assert (status, error.count("\n")) == (2, 1)
    assert reason in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_other_commands_take_no_exported_file(folder, tmp_path, capsys, command):
    words = {
        "evaluate": ["--dataset=shapes", f"--data_dir={tmp_path}"],
        "export": ["--format=onnx", f"--output={tmp_path / 'x.onnx'}"],
    }[command]
    assert run([command, f"--model={folder / 'network.onnx'}", *words], Console()) == 2
    error = capsys.readouterr().err
    assert "`deeplab-jax predict` runs exported networks" in error
