"""A shared model is the same model in one safetensors file, with a card that the Hub can read."""

import dataclasses
import json

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from random_variables import random_variables
from stand_ins import write_workdir

from deeplab_jax import config as configs
from deeplab_jax import sharing
from deeplab_jax.checkpointing import (
    SAFETENSORS,
    ModelDescription,
    StoredModel,
    read_description,
    read_model,
    write_description,
    write_shared_model,
)
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data.shapes import OUTLINES
from deeplab_jax.errors import DeepLabError
from deeplab_jax.sharing.model_card import model_card
from deeplab_jax.sharing.training_facts import read_metrics, read_training

CLASSES = ("background", *OUTLINES)
METRICS = {
    "mean_iou": 0.625,
    "pixel_accuracy": 0.9,
    "mean_accuracy": None,
    "per_class_iou": dict.fromkeys(CLASSES, 0.625) | {"ring": None},
    "num_images": 7,
    "settings": {
        "model": "/somewhere/run",
        "dataset": "shapes",
        "split": "val",
        "scales": [0.75, 1.0],
        "flip": True,
        "batch_size": 8,
    },
}


@pytest.fixture(scope="module")
def stored():
    overrides = {
        "backbone": "mobilenet_v2",
        "depth_multiplier": 0.25,
        "num_classes": len(CLASSES),
        "aspp_channels": 8,
        "decoder_convs": ((3, 8),),
    }
    palette = tuple((index, 255 - index, 7) for index in range(len(CLASSES)))
    description = ModelDescription(
        "deeplab_v3plus", overrides, CLASSES, palette, source={"trained_on": "shapes/train"}
    )
    model = description.create_model()
    return StoredModel(
        model, random_variables(model, np.zeros((1, 33, 33, 3), np.uint8)), description
    )


@pytest.fixture(scope="module")
def directory(stored, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "model"
    notes = sharing.CardNotes("user/tiny", "mit", [METRICS], "A sentence with ---, | and `code`.")
    sharing.write_shared_directory(folder, stored, None, notes)
    return folder


def flat(variables):
    return traverse_util.flatten_dict(variables, sep="/")


def test_the_model_comes_back_unchanged(directory, stored):
    again = read_model(directory)
    assert again.description.overrides == dict(stored.model.architecture.describe())
    assert again.description.class_names == CLASSES
    ours, theirs = flat(stored.variables), flat(again.variables)
    assert list(map(str, sorted(ours))) == sorted(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array, strict=True)


def test_other_libraries_read_the_file(directory, stored):
    arrays = safetensors.numpy.load_file(directory / SAFETENSORS)
    assert set(arrays) == set(traverse_util.flatten_dict(stored.variables, sep="."))


def test_module_names_with_slashes_are_kept(stored, tmp_path):
    """Such as those of the units of ResNets."""
    unit = {"conv1": {"kernel": np.ones(2, np.float32)}}
    variables = {"params": {"backbone": {"block1/unit_1": unit, "stem_1": unit}}}
    write_shared_model(tmp_path, stored.description, variables)
    found = traverse_util.flatten_dict(read_model(tmp_path).variables)
    assert found.keys() == traverse_util.flatten_dict(variables).keys()


def test_names_with_slashes_between_the_keys_are_read(stored, tmp_path):
    """Earlier versions wrote them."""
    write_description(tmp_path, stored.description)
    arrays = {"params/classifier/bias": np.ones(2, np.float32)}
    safetensors.numpy.save_file(arrays, tmp_path / SAFETENSORS)
    assert list(read_model(tmp_path).variables["params"]["classifier"]) == ["bias"]


def test_integers_scalars_and_transposed_arrays_keep_type_shape_and_order(stored, tmp_path):
    variables = {
        "params": {
            "kernel": np.arange(-6, 6, dtype=np.int8).reshape(3, 4).T,
            "input_scale": np.float32(0.5),
        }
    }
    write_shared_model(tmp_path, stored.description, variables)
    found = read_model(tmp_path).variables["params"]
    np.testing.assert_array_equal(found["kernel"], variables["params"]["kernel"], strict=True)
    assert (found["input_scale"].shape, found["input_scale"]) == ((), 0.5)


@pytest.mark.parametrize(
    "change", [lambda data: data[:-3], lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_damage_is_reported(directory, tmp_path, change):
    for name in ("model.json", SAFETENSORS):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    (tmp_path / SAFETENSORS).write_bytes(change((directory / SAFETENSORS).read_bytes()))
    with pytest.raises(DeepLabError, match=r"model.safetensors is damaged: its SHA-256 is"):
        read_model(tmp_path)


def test_the_card_is_valid_and_states_the_metrics(directory):
    card = huggingface_hub.ModelCard.load(directory / "README.md")
    data = card.data
    assert (data.license, data.library_name) == ("mit", "deeplab_jax")
    assert (data.pipeline_tag, data.datasets) == ("image-segmentation", ["shapes"])
    assert {"semantic-segmentation", "mobilenet_v2", "jax"} <= set(data.tags)
    assert data.metrics == ["mean_iou", "pixel_accuracy"]
    assert data.model_name == "tiny"
    found = {result.metric_type: result for result in data.eval_results}
    result = found["mean_iou"]
    assert (result.metric_value, result.dataset_type, result.dataset_split) == (
        0.625,
        "shapes",
        "val",
    )
    assert result.metric_args == {"scales": [0.75, 1.0], "flip": True, "batch_size": 8}
    assert "| ring | – |" in card.text
    assert "Settings: scales: 0.75, 1; flip: yes; batch size: 8." in card.text
    assert 'load("hf://user/tiny")' in card.text
    assert "/somewhere" not in card.content


def test_the_card_of_a_branch_loads_the_model_from_this_branch(stored):
    card = model_card(stored, None, sharing.CardNotes("user/tiny", revision="v2"))
    assert 'load("hf://user/tiny@v2")' in card
    assert "--model=hf://user/tiny@v2 " in card
    assert "# tiny" in card


def test_the_picture_is_a_drawing_for_a_model_of_drawings(directory):
    assert "on a drawn image" in (directory / "README.md").read_text("utf-8")
    assert (directory / "example.png").stat().st_size > 1000


def test_a_license_that_the_hub_does_not_list_gets_a_name(stored, tmp_path):
    source = {"license": "other (made from the Apache-2.0 release)", "metrics": ["71 % mIoU"]}
    description = dataclasses.replace(stored.description, source=source)
    published = dataclasses.replace(stored, description=description)
    sharing.write_shared_directory(tmp_path / "m", published, None, sharing.CardNotes())
    card = huggingface_hub.ModelCard.load(tmp_path / "m" / "README.md")
    assert card.data.license == "other"
    assert card.data.license_name == source["license"].lower()
    assert "* 71 % mIoU" in card.text
    assert 'load("hf://USER/NAME")' in card.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Published by the authors of the weights:"),
        ({"pruned": {"sparsity": 0.5}}, "weights, measured before they were changed:"),
    ],
)
def test_published_metrics_of_changed_weights_are_those_of_the_original(stored, changes, words):
    source = {"metrics": ["71 % mIoU"]} | changes
    description = dataclasses.replace(stored.description, source=source)
    changed = dataclasses.replace(stored, description=description)
    assert words in model_card(changed, None, sharing.CardNotes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give a metrics.json, or the directory in which"),
        ("{", "is not a metrics.json of `deeplab-jax evaluate`"),
        (json.dumps({"mean_iou": 1}), "it must have the keys mean_iou, per_class_iou"),
        (
            json.dumps(METRICS | {"per_class_iou": None}),
            "per_class_iou and settings must be JSON objects",
        ),
        (
            json.dumps(METRICS | {"settings": ["val"]}),
            "per_class_iou and settings must be JSON objects",
        ),
        (json.dumps(METRICS | {"settings": {"split": "val"}}), "must have the keys dataset"),
        (json.dumps(METRICS | {"mean_iou": "0.5"}), "mean_iou must be a number or null, got '0.5'"),
        (json.dumps(METRICS | {"per_class_iou": {"sky": "–"}}), "sky must be a number or null"),
        (
            json.dumps(METRICS | {"per_class_iou": {"sky": 1}}),
            "metrics of a model with other classes: class 0 is .sky. instead of",
        ),
    ],
)
def test_wrong_metrics_are_refused(stored, tmp_path, content, message):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DeepLabError, match=message):
        read_metrics([str(path)], stored.description)


@pytest.mark.parametrize(
    ("decay", "ema", "expected"),
    [(0.99, None, 0.25), (0.99, True, 0.25), (0.99, False, None), (0.0, False, 0.25)],
)
def test_the_validation_of_the_average_is_not_that_of_the_variables(decay, ema, expected, tmp_path):
    path = write_workdir(tmp_path / "run", ["sky", "tree"])
    config = configs.default()
    config.training.ema_decay = decay
    (path / "config.json").write_text(configs.to_json(config))
    (path / "metrics.jsonl").write_text('{"step": 1, "validation_mean_iou": 0.25}\n')
    training = read_training(path, read_description(path), "last", ema)
    assert training.validation_mean_iou == expected


@pytest.mark.parametrize(
    "content", ["", "[]", '{"train": 3}', '{"train": {"name": "shapes", "split": "train"}}']
)
def test_damaged_facts_about_the_data_are_reported(content, tmp_path):
    path = write_workdir(tmp_path / "run", ["sky", "tree"])
    (path / "config.json").write_text(configs.to_json(configs.default()))
    (path / "data.json").write_text(content)
    with pytest.raises(DeepLabError, match=r"data\.json, which describes the data of the run"):
        read_training(path, read_description(path), "last")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--model must be given"),
        (["--model=M"], "--repo or --output must be given"),
        (["--model=M", "--output=new", "--private"], "--private requires --repo"),
        (["--model=M", "--output=new", "--revision=v1"], "--revision requires --repo"),
        (["--model=M", "--repo=tiny"], "--repo=tiny is not a repository"),
        (["--model=M", "--repo=user/tiny", "--revision=a b"], "is not the name of a branch"),
        (["--model=M", "--repo=user/tiny"], "requires a token of the Hugging Face Hub"),
        (["--model=hf://tiny", "--output=new"], "hf://tiny is not a repository"),
        (["--model=hf://user/tiny@", "--output=new"], "the revision after @ is missing"),
        (["--model=M", "--output=new"], "README.md, which is uploaded unchanged"),
        (["--model=N", "--output=full"], "full exists and is not an empty directory"),
        (["--model=N", "--output=new"], "N is not a model: neither a directory nor"),
    ],
)
def test_mistakes_are_refused(words, message, directory, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (tmp_path / "M").symlink_to(directory)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert run(["push", *words], Console()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_nothing(stored, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deeplab_jax.sharing.directory.write_picture", fail)
    with pytest.raises(DeepLabError, match="cannot be written: no space is left on the disk"):
        sharing.write_shared_directory(tmp_path / "m", stored, None, sharing.CardNotes())
    assert list(tmp_path.iterdir()) == []
