import dataclasses
import json
import re

import pytest
from stand_ins import RedReader, write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.evaluate import _chosen_weights, _compare
from deeplab_jax.cli.main import load_command, run
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.inference import InferenceOptions, Predictor


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory with a prepared `shapes` in data/ and an untrained model of it in run/."""
    folder = tmp_path_factory.mktemp("world")
    prepare = ["--num_train=1", "--num_val=5", "--size=64", f"--data_dir={folder / 'data'}"]
    assert run(["prepare", "shapes", *prepare], Console()) == 0
    write_workdir(folder / "run", SHAPES.class_names)
    write_workdir(folder / "other", ["sky", "tree"])
    return folder


@pytest.fixture
def evaluate(world, monkeypatch, capsys):
    """Runs the command; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(world)
    capsys.readouterr()
    defaults = {"model": "run", "dataset": "shapes", "split": "val", "data_dir": "data"}

    def evaluate(*extra, **flags):
        given = [f"--{name}={value}" for name, value in (defaults | flags).items()]
        return run(["evaluate", *given, *extra], Console()), *capsys.readouterr()

    return evaluate


def test_prints_the_table_and_writes_the_report(evaluate, world):
    status, printed, _ = evaluate("--batch_size=2", output="report")
    assert status == 0
    metrics = json.loads((world / "report" / "metrics.json").read_text())
    assert metrics["num_images"] == 5
    assert list(metrics["per_class_iou"]) == list(SHAPES.class_names)
    assert f"{100 * metrics['mean_iou']:.2f}" in printed
    assert metrics["settings"]["size"] == [65, 65]
    assert metrics["settings"]["model"] == "run"
    assert (world / "report" / "contact_sheet.png").stat().st_size > 0
    status, printed, _ = evaluate("--batch_size=5", "--limit=3", "--size=81x70")
    assert status == 0
    assert re.search(r"^images +3$", printed, re.MULTILINE)


def test_inference_flags_apply_and_are_recorded(evaluate, world):
    flags = {"scales": "0.5,1", "output_stride": "8", "trimap": "2,5", "tile": "65x65"}
    status, printed, _ = evaluate("--flip", "--overlap=0.1", "--limit=2", output="told", **flags)
    assert status == 0
    settings = json.loads((world / "told" / "metrics.json").read_text())["settings"]
    assert settings["output_stride"] == 8
    assert settings["scales"] == [0.5, 1]
    assert settings["flip"] is True
    assert settings["tile"] == [65, 65]
    assert settings["overlap"] == 0.1
    assert settings["crf"] is None
    for line in ("output stride: 8", "scales: 0.5, 1", "flip: yes", "tile: 65, 65"):
        assert line in printed.splitlines()
    assert "trimap IoU, 5 px" in printed


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        ("run", [], ""),
        ("run", ["--checkpoint=last"], " (checkpoint last)"),
        ("run", ["--checkpoint=20", "--noema"], " (checkpoint 20, no moving average)"),
        ("run", ["--ema"], " (moving average)"),
        ("directory", ["--checkpoint=last"], ""),
        ("hf://user/name", ["--checkpoint=last"], ""),
    ],
)
def test_the_report_names_the_chosen_variables_of_a_workdir(
    tmp_path, monkeypatch, model, given, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "directory").mkdir()
    _, flags = load_command("evaluate")
    flags(["evaluate", f"--model={model}", *given])
    assert _chosen_weights(flags) == expected


def test_the_table_measures_each_step(evaluate, world):
    status, printed, error = evaluate("--flip", "--limit=3", "--table", output="steps")
    assert status == 0
    assert "strategies.json is in steps" in error
    rows = json.loads((world / "steps" / "strategies.json").read_text())
    assert [row["strategy"] for row in rows] == ["plain", "+ flip"]
    assert rows[0]["mean_iou_change"] is None
    change = rows[1]["mean_iou_change"]
    assert change["difference"] == pytest.approx(rows[1]["mean_iou"] - rows[0]["mean_iou"])
    assert f"{100 * rows[1]['mean_iou']:.2f}" in printed
    assert "flip: yes" in printed


@pytest.mark.parametrize(("bands", "last"), [(3, "+ CRF"), (4, "+ flip")])
def test_the_default_table_has_a_crf_only_for_rgb(monkeypatch, bands, last):
    architecture = dataclasses.replace(RedReader().architecture, in_channels=bands)
    predictor = Predictor(RedReader(architecture), {}, "abcd", [(0, 0, 0)] * 4)
    compared = {}

    def compare(predictor, dataset, steps, **settings):
        compared.update(steps)
        return [{"settings": {}}]

    monkeypatch.setattr("deeplab_jax.evaluation.compare_strategies", compare)
    monkeypatch.setattr("deeplab_jax.evaluation.comparison_table", str)
    monkeypatch.setattr("deeplab_jax.evaluation.settings_lines", list)
    _compare(predictor, None, InferenceOptions(), {})
    assert list(compared)[-1] == last


@pytest.mark.parametrize("flag", ["--notable", "--table"])
def test_an_output_that_is_a_file_is_refused_before_the_evaluation(evaluate, world, flag):
    (world / "file").write_text("mine")
    status, printed, error = evaluate("--flip", flag, "--limit=1", output="file")
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert "file cannot be written (File exists)" in error
    assert (world / "file").read_text() == "mine"


def test_another_list_of_classes_is_scored(evaluate, world):
    (world / "map.txt").write_text("sky: background\ntree: disc\n")
    status, printed, _ = evaluate("--limit=2", model="other", class_map="map.txt", output="listed")
    assert status == 0
    metrics = json.loads((world / "listed" / "metrics.json").read_text())
    assert list(metrics["per_class_iou"]) == ["background", "disc"]
    assert "class map: sky background, tree disc" in printed
    status, printed, _ = evaluate("--limit=2", "--table", "--flip", classes="disc,ring")
    assert status == 0
    assert "classes: disc, ring" in printed


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"split": "vol"}, "val"),
        ({"dataset": "shaeps"}, "shapes"),
        ({"data_dir": "nowhere"}, "nowhere"),
        ({"model": "nowhere"}, "nowhere"),
        ({"model": "data"}, "model.json"),
        ({"model": "other"}, "the model has 2 classes, but the dataset shapes has"),
        ({"model": "other"}, "--class_map=FILE"),
        ({"class_map": "none.txt"}, "none.txt: cannot read the class map: no such file"),
        ({"classes": "disk,ring"}, "unknown class 'disk'; did you mean 'disc'"),
        ({"size": "513"}, "513x513"),
        ({"size": "32x32"}, "larger than the evaluation size"),
        ({"limit": "0"}, "limit"),
        ({"dataset": ""}, "--dataset must be given"),
        ({"flop": "true"}, "flip"),
        ({"scales": "0.5,x"}, "--scales=0.5,x is not legal"),
        ({"scales": "1,1"}, "contain one scale twice"),
        ({"scales": ""}, "scales"),
        ({"output_stride": "7"}, "must be one of 4, 8, 16, 32"),
        ({"output_stride": "x"}, "output_stride"),
        ({"tile": "65"}, "513x513"),
        ({"tile": "65x65", "overlap": "0.7"}, "[0, 0.5)"),
        ({"tile": "33x33", "overlap": "0.4"}, "discard all pixels of a tile"),
        ({"tile": "65x65", "size": "65x65"}, "applies only to whole images"),
        ({"overlap": "0.1"}, "give --tile"),
        ({"crf": "deeplap"}, "did you mean 'deeplab'"),
        ({"trimap": "1,a"}, "--trimap=1,a is not legal"),
        ({"trimap": "0"}, "trimap width 0 must be an integer"),
        ({"trimap": "3", "table": "true"}, "omit one of them"),
    ],
)
def test_mistakes_give_one_line_errors(evaluate, world, flags, complaint):
    status, printed, error = evaluate(output="unwritten", **flags)
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert complaint in error
    assert not (world / "unwritten").exists()
