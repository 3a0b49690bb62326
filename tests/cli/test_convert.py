import json
import shutil

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.checkpointing import ModelDescription
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.convert import account
from deeplab_jax.cli.main import run
from deeplab_jax.data.descriptors import VOC
from deeplab_jax.pretrained import Conversion
from deeplab_jax.pretrained.assignment import Assignment

FLOAT_FILE = "deeplabv3_mnv2_dm05_voc_257_float.tflite"
NAME = "deeplabv3_mobilenetv2_dm05_voc_tflite"


@pytest.fixture
def weights(shared):
    return shared / "weights" / FLOAT_FILE


@pytest.fixture
def deeplab(tmp_path, monkeypatch, capsys):
    """Runs the program in an empty directory; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    return lambda *arguments: (
        run([str(argument) for argument in arguments], Console()),
        *capsys.readouterr(),
    )


def test_every_array_is_accounted_for(deeplab, tmp_path, weights):
    status, printed, error = deeplab("convert", weights, "--output=voc")
    assert (status, error) == (0, "")
    assert "deeplab_v3 with backbone=mobilenet_v2, depth_multiplier=0.5" in printed
    assert "110 arrays are used: backbone 102, classifier 2, pooling 6" in printed
    assert "54 batch normalizations are folded" in printed
    assert "no array is unused" in printed
    assert "inference size: 257×257" in printed
    source = json.loads((tmp_path / "voc" / "model.json").read_text())["source"]
    assert source["file"] == FLOAT_FILE
    assert source["sha256"].startswith("9711334d")


def test_a_converted_model_predicts(deeplab, tmp_path, weights):
    Image.new("RGB", (90, 70)).save(tmp_path / "black.png")
    assert deeplab("convert", weights, "--output=voc")[0] == 0
    assert deeplab("predict", "--model=voc", "--output=out", "black.png")[0] == 0
    with Image.open(tmp_path / "out" / "black.png") as mask:
        assert mask.size == (90, 70)
    status, _, error = deeplab("convert", weights, "--output=voc")
    assert (status, error.count("\n")) == (2, 1)
    assert "voc exists and is not an empty directory" in error


def test_directories_names_and_overrides(deeplab, tmp_path, weights):
    folder = tmp_path / "cache" / "pretrained"
    folder.mkdir(parents=True)
    shutil.copy(weights, folder / "deeplabv3.tflite")
    assert deeplab("convert", folder, "--output=of_folder")[0] == 0
    (tmp_path / "names.txt").write_text("\n".join(f"class {n}" for n in range(21)))
    flags = ["--set=output_stride=16,dropout_rate=0.5", "--classes=names.txt"]
    status, printed, _ = deeplab("convert", NAME, "--output=named", *flags)
    assert status == 0
    assert "output_stride=16" in printed
    described = json.loads((tmp_path / "named" / "model.json").read_text())
    assert described["overrides"]["dropout_rate"] == 0.5
    assert described["class_names"][20] == "class 20"
    assert described["source"]["license"] == "Apache-2.0"
    assert (
        "license" not in json.loads((tmp_path / "of_folder" / "model.json").read_text())["source"]
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give one SOURCE to convert"),
        (["WEIGHTS", "other"], "give one SOURCE to convert"),
        (["WEIGHTS"], "--output must be given"),
        (["WEIGHTS", "--output=."], "exists and is not an empty directory"),
        (["nowhere.tflite", "--output=out"], "nowhere.tflite: there is no such file"),
        (["deeplabv3_mobilenetv2_vok", "--output=out"], "did you mean 'deeplabv3_mobilenetv2_voc'"),
        (["text.txt", "--output=out"], "unknown format .txt; legal: .tflite"),
        (["empty", "--output=out"], "contains no weights"),
        (["WEIGHTS", "--output=out", "--architecture=deeplab_v33"], "did you mean 'deeplab_v3'?"),
        (["WEIGHTS", "--output=out", "--set=output_strid=8"], "did you mean 'output_stride'?"),
        (
            ["WEIGHTS", "--output=out", "--set=num_classes=20"],
            "logits/semantic/weights has the shape",
        ),
        (["WEIGHTS", "--output=out", "--set=aux_head=True"], "does not fit the network"),
        (["WEIGHTS", "--output=out", "--classes=text.txt"], "21 outputs, but 1 class names"),
        (["WEIGHTS", "--output=out", "--classes=none.txt"], "none.txt"),
        (["WEIGHTS", "--output=out", "--set=quantization=int8"], "run `deeplab-jax quantize`"),
        (["WEIGHTS", "--output=out", "--set=num_classes=[21]"], "num_classes=(21,) must be"),
        (["WEIGHTS", "--output=out", "--set=output_stride=16.0"], "output_stride=16.0 must be"),
        (["WEIGHTS", "--output=out", "--architeture=x"], "architeture"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(deeplab, tmp_path, weights, arguments, complaint):
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    given = [weights if argument == "WEIGHTS" else argument for argument in arguments]
    status, printed, error = deeplab("convert", *given)
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert complaint in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.txt"]


@pytest.mark.parametrize("every", [False, True])
def test_omitted_variables_are_grouped_by_reason(every):
    unused = {f"momentum_{n}": "it belongs to the optimizer" for n in range(5)}
    unused["global_step"] = "it counts training steps"
    description = ModelDescription("deeplab_v3", {}, VOC.class_names, VOC.palette)
    sources = {("params", part, "kernel"): part for part in ("backbone", "aspp")}
    assignment = Assignment(
        arrays={path: np.zeros(1) for path in sources}, sources=sources, unused=unused
    )
    lines = list(account(Conversion(description, {}, assignment, "some code"), every=every))
    [optimiser] = [line for line in lines if "optimizer" in line]
    assert optimiser.startswith("5 unused (it belongs to the optimizer): momentum_0,")
    assert ("momentum_4" in optimiser) == every
    assert "1 unused (it counts training steps): global_step" in lines
    assert "2 arrays are used: backbone 1, aspp 1" in lines
    assert not any("assumed" in line for line in lines)


def test_an_assumed_padding_is_printed():
    description = ModelDescription("deeplab_v3", {}, VOC.class_names, VOC.palette)
    other = {"backbone": "timm/tf_efficientnet_b0"}
    assignment = Assignment(arrays={}, sources={}, unused={})
    lines = account(Conversion(description, {}, assignment, "timm", other), every=False)
    [line] = [line for line in lines if line.startswith("assumed: PyTorch's padding")]
    assert line.endswith("--set=backbone=timm/tf_efficientnet_b0")
