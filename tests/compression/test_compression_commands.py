"""`quantize`, `prune` and `distill`, from a model directory to a report."""

import dataclasses
import importlib
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from band_scenes import write_scenes
from random_variables import random_variables
from small_models import describe
from tiny_recipe import write_tiny_recipe

from deeplab_jax import checkpointing, inference
from deeplab_jax import config as configs
from deeplab_jax.cli import compression
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.compression.fine_tuning import digest, fine_tune
from deeplab_jax.compression.magnitude_pruning import sparsity_of
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.summary import summarize
from deeplab_jax.reporter import Reporter
from deeplab_jax.sharing.model_card import CardNotes, model_card
from deeplab_jax.training.writers import Monitor


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A directory with a prepared `shapes` in data/, an untrained model and a recipe."""
    folder = tmp_path_factory.mktemp("world")
    prepare = ["--num_train=4", "--num_val=2", "--size=48", f"--data_dir={folder / 'data'}"]
    assert run(["prepare", "shapes", *prepare], Console()) == 0
    names, palette = SHAPES.class_names, tuple(map(tuple, SHAPES.palette))
    small = describe("mobilenet_v2", num_classes=len(names))
    description = checkpointing.ModelDescription(
        small.architecture, small.overrides, names, palette
    )
    model = description.create_model()
    variables = random_variables(model, np.zeros((1, 33, 33, 3), np.uint8))
    checkpointing.write_model(folder / "model", description, variables)
    two = describe("mobilenet_v2", num_classes=2)
    two = dataclasses.replace(two, class_names=names[:2], palette=palette[:2])
    image = np.zeros((1, 33, 33, 3), np.uint8)
    checkpointing.write_model(folder / "two", two, random_variables(two.create_model(), image))
    write_tiny_recipe(
        folder / "recipe.py",
        training__num_steps=2,
        training__batch_size=2,
        training__ema_decay=0.0,
        evaluation__limit=2,
    )
    return folder


@pytest.fixture
def compress(world, monkeypatch, capsys):
    """Runs a command; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(world)
    capsys.readouterr()

    def compress(command, *flags):
        given = ["--model=model", "--dataset=shapes", "--data_dir=data", *flags]
        return run([command, *given], Console()), *capsys.readouterr()

    return compress


def report(world, name):
    return json.loads((world / name / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_quantize_with_steps_of_training(compress, world):
    status, printed, _ = compress(
        "quantize", "--output=int8", "--steps=2", "--config=recipe.py", "--calibration_limit=9"
    )
    assert status == 0
    assert "bytes on disk" in printed
    found = report(world, "int8")
    assert found["ratios"]["int8"]["array_bytes"] < 0.45
    assert found["settings"]["num_images"] == 2
    source = checkpointing.read_description(world / "int8").source
    assert source["fine_tuned"] == {"steps": 2, "on": "shapes"}
    assert source["quantized"]["calibrated_on"] == "4 images of shapes/train"
    assert inference.load(world / "int8").model.architecture.quantization == "int8"
    again, _, complaint = compress("quantize", "--output=int8")
    assert again == 2
    assert "exists and is not an empty directory" in complaint


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_prune_channels_and_weights(compress, world):
    common = ["--steps=2", "--config=recipe.py"]
    status, *_ = compress(
        "prune", "--output=narrow", "--structured", "--macs=0.7", "--multiple=1", *common
    )
    assert status == 0
    narrow = checkpointing.read_model(world / "narrow")
    assert report(world, "narrow")["ratios"]["pruned"]["macs"] <= 0.7
    whole = checkpointing.read_model(world / "model")
    size = (65, 65)
    assert summarize(narrow.model, size).macs < 0.75 * summarize(whole.model, size).macs

    status, *_ = compress("prune", "--output=sparse", "--sparsity=0.75", *common)
    assert status == 0
    sparse = checkpointing.read_variables(world / "sparse")
    assert sparsity_of(sparse["params"]) == pytest.approx(0.75, abs=0.01)
    source = checkpointing.read_description(world / "sparse").source
    assert source["pruned"] == {"sparsity": 0.75}


def test_the_card_of_a_sparse_model_states_the_sparsity(compress, world, monkeypatch):
    written = []
    monkeypatch.setattr(compression, "fine_tuned", lambda flags, source, stored, *rest: stored)
    monkeypatch.setattr(compression, "write_compressed", lambda *given: written.append(given[3]))
    common = ["--output=described", "--steps=2", "--config=recipe.py"]
    assert compress("prune", "--sparsity=0.75", *common)[0] == 0
    (made,) = written
    assert made.description.source["pruned"] == {"sparsity": 0.75}
    assert "Pruned: sparsity 0.75." in model_card(made, None, CardNotes())


@pytest.fixture
def interrupted(monkeypatch):
    """Every training run is interrupted after its first row of metrics."""

    def interrupt(run, *given):
        with Monitor(run.workdir, 0, writers=()) as monitor:
            monitor.write(1, {"loss": 1.0})
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("deeplab_jax.training.train"), "_train", interrupt)


@pytest.fixture
def other_model(world):
    """Path of a model with the network of `model`, but other variables."""
    path = world / "other"
    if not path.exists():
        stored = checkpointing.read_model(world / "model")
        variables = jax.tree.map(lambda array: array / 2, stored.variables)
        checkpointing.write_model(path, stored.description, variables)
    return path.name


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize(
    ("command", "flags", "changes"),
    [
        ("prune", ["--sparsity=0.5"], [(["--sparsity=0.9"], "sparsity: 0.5 → 0.9")]),
        (
            "prune",
            ["--sparsity=0.5", "--teacher_weight=1"],
            [(["--teacher_weight=2"], "teacher_weight: 1.0 → 2.0")],
        ),
        ("quantize", [], []),
    ],
)
def test_only_the_same_model_and_settings_resume_a_fine_tuning(
    compress, other_model, tmp_path, command, flags, changes
):
    common = [f"--output={tmp_path / 'x'}", "--steps=2", "--config=recipe.py", *flags]
    for _ in range(2):
        assert compress(command, *common)[0] == 130
    for change, complaint in [*changes, ([f"--model={other_model}"], "a run of another model")]:
        status, _, error = compress(command, *common, *change)
        assert status == 2
        assert complaint in error
        assert f"remove {tmp_path / 'x-training'}" in error
    assert compress(command, *common)[0] == 130


@pytest.mark.slow
@pytest.mark.usefixtures("interrupted")
def test_only_the_same_model_and_settings_resume_a_structured_pruning(
    compress, other_model, tmp_path
):
    output = [f"--output={tmp_path / 'x'}", "--steps=2", "--config=recipe.py", "--structured"]
    common = [*output, "--macs=0.8", "--multiple=1", "--calibration_limit=1"]
    for _ in range(2):
        assert compress("prune", *common)[0] == 130
    status, _, error = compress("prune", *common, "--macs=0.7")
    assert status == 2
    assert "macs: 0.8 → 0.7" in error
    status, _, error = compress("prune", *common, f"--model={other_model}")
    assert status == 2
    assert "pruned_model: " in error


@pytest.mark.usefixtures("interrupted")
def test_only_the_same_teacher_and_settings_resume_a_distillation(
    world, other_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(world)
    flags = ["--config=recipe.py", f"--output={tmp_path / 'x'}", "--config.data.data_dir=data"]

    def distill(*changes):
        capsys.readouterr()
        return run(["distill", "--model=model", *flags, *changes], Console())

    assert [distill(), distill()] == [130, 130]
    for change, name in (
        (f"--model={other_model}", "teacher"),
        ("--weight=2", "teacher_weight"),
        ("--temperature=3", "teacher_temperature"),
    ):
        assert distill(change) == 2
        assert f"other settings ({name}: " in capsys.readouterr().err
    plain = ["--config=recipe.py", f"--workdir={tmp_path / 'x'}", "--config.data.data_dir=data"]
    assert run(["train", *plain], Console()) == 2


def test_the_output_appears_with_its_report_or_not_at_all(world, tmp_path, monkeypatch):
    output, stored = tmp_path / "x", checkpointing.read_model(world / "model")
    flags = SimpleNamespace(
        output=str(output), checkpoint="best", ema=None, tflite=None, split_settings=dict
    )

    def interrupt(*given, **settings):
        raise KeyboardInterrupt

    def write():
        compression.write_compressed(flags, world / "model", "pruned", stored, None, Console())

    monkeypatch.setattr("deeplab_jax.compression.effects.compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert not output.exists()
    found = {"models": {}, "ratios": {}}
    monkeypatch.setattr("deeplab_jax.compression.effects.compare", lambda *_, **__: found)
    write()
    assert digest(checkpointing.read_model(output)) == digest(stored)
    assert json.loads((output / "report.json").read_text()) == found


def test_a_model_left_by_a_call_that_failed_is_replaced(world, other_model, tmp_path):
    def fail(run):
        raise DeepLabError("no")

    config = configs.load(str(world / "recipe.py"))
    config.data.data_dir = str(world / "data")
    for name in ("model", other_model):
        stored = checkpointing.read_model(world / name)
        with pytest.raises(DeepLabError, match="no"):
            fine_tune(stored, config, tmp_path, 1, Reporter(), fail)
        assert digest(checkpointing.read_model(tmp_path / "start")) == digest(stored)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_distill_from_a_teacher(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    flags = ["--model=model", "--config=recipe.py", "--output=taught"]
    assert run(["distill", *flags, "--config.data.data_dir=data"], Console()) == 0
    assert "after 2 steps" in capsys.readouterr().out
    assert inference.load(world / "taught").class_names == SHAPES.class_names


@pytest.mark.parametrize(
    ("command", "flags", "complaint"),
    [
        ("quantize", ["--output=x", "--dataset="], "--dataset must be given"),
        ("prune", ["--output=x"], "give --steps=N"),
        ("prune", ["--output=x", "--macs=0.3", "--steps=1"], "--macs requires --structured"),
        ("prune", ["--output=x", "--multiple=8", "--steps=1"], "--multiple requires --structured"),
        (
            "prune",
            ["--output=x", "--structured", "--sparsity=0.5"],
            "--sparsity cannot be combined with --structured",
        ),
        ("prune", ["--output=x", "--structured", "--macs=2"], "must be in (0, 1]"),
        ("quantize", ["--output=model"], "exists and is not an empty directory"),
        ("quantize", ["--output=x", "--config=recipe.py"], "--config requires --steps=N"),
        (
            "quantize",
            ["--output=x", "--config.training.batch_size=2"],
            "--config.FIELD=VALUE requires --steps=N",
        ),
        (
            "prune",
            ["--output=x", "--structured", "--teacher_weight=1"],
            "--teacher_weight requires --steps=N",
        ),
        (
            "quantize",
            ["--output=x", "--steps=1", "--config.model.head=aspp"],
            "--model defines the network",
        ),
        ("quantize", ["--output=x", "folder"], "only flags, not 'folder'"),
        ("prune", ["--output=x", "--steps=1", "--size=33"], "size '33' is not legal"),
        ("prune", ["--output=x", "--steps=1", "--size=33x33"], "give at least 48x48"),
        ("quantize", ["--output=x", "--model=two"], "2 classes, but the dataset shapes has 6"),
    ],
)
def test_mistakes_are_reported_before_any_work(compress, world, command, flags, complaint):
    status, _, told = compress(command, *(flags[::-1] if flags[-1] == "folder" else flags))
    assert status == 2
    assert complaint in told
    assert not (world / "x").exists()
    assert not (world / "x-training").exists()


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("--config.training.batch_sise=2", "did you mean 'training.batch_size'?"),
        ("--config.training.batch_size=0", "training.batch_size=0 must be a whole number"),
    ],
)
def test_a_mistake_in_the_config_is_reported_before_the_pruning(
    compress, world, monkeypatch, override, complaint
):
    monkeypatch.setattr(
        "deeplab_jax.compression.pruning.prune_channels",
        lambda *given, **settings: pytest.fail("it is pruned"),
    )
    flags = ["--output=x", "--structured", "--steps=1", "--config=recipe.py", override]
    status, _, error = compress("prune", *flags)
    assert status == 2
    assert complaint in error
    assert not (world / "x").exists()


def test_a_calibration_dataset_of_other_bands_is_reported_before_any_work(
    compress, tmp_path, monkeypatch
):
    source = write_scenes(tmp_path / "source", 1, 1, size=48)
    prepare = ["prepare", "folder", f"--source={source}", "--data_dir=data", "--bands=all"]
    assert run(prepare, Console()) == 0
    monkeypatch.setattr(compression, "fine_tuned", lambda *given: pytest.fail("it is fine-tuned"))
    status, _, error = compress("quantize", "--output=x", "--calibration_dataset=folder")
    assert status == 2
    assert "5 bands of uint16; give a --calibration_dataset with" in error


def test_a_tflite_file_that_cannot_be_run_is_reported_before_any_work(compress, world):
    pytest.importorskip("ai_edge_litert")
    status, _, error = compress("quantize", "--output=x", "--tflite=typo.tflite")
    assert status == 2
    assert "typo.tflite cannot be run as a TFLite file" in error
    assert not (world / "x").exists()
