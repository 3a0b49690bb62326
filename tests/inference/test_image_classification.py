"""Classifiers of whole images, from the directory to the file."""

import json

import jax
import numpy as np
import PIL.Image
import pytest
from compiling import run_once
from random_variables import random_variables
from stand_ins import noise

from deeplab_jax.checkpointing import CLASSIFICATION, ModelDescription, write_model
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import ImageClassification, load
from deeplab_jax.inference.image_classification import central_crop

NAMES = ("background", "cat", "dog", "house", "boat", "tree", "sky")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The model directory of a classifier with random weights."""
    description = ModelDescription(
        architecture="image_classifier",
        overrides={"backbone": "mobilenet_v2", "depth_multiplier": 0.35, "num_classes": 7},
        class_names=NAMES,
        palette=bit_interleaved_palette(7),
        inference_size=(64, 96),
        task=CLASSIFICATION,
    )
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), np.uint8)
    variables = random_variables(description.create_model(), image)
    path = tmp_path_factory.mktemp("classifier") / "model"
    write_model(path, description, variables)
    return path


@pytest.fixture(scope="module")
def classifier(directory):
    return load(directory)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name, size in {"a.jpg": (40, 50), "sub/b.png": (65, 33)}.items():
        PIL.Image.fromarray(noise(*size)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_the_most_probable_classes_come_first(classifier):
    assert isinstance(classifier, ImageClassification)
    assert classifier.class_names == NAMES
    image = noise(70, 100)
    found = classifier(image)
    assert len(found) == 5
    probabilities = [entry.probability for entry in found]
    assert probabilities == sorted(probabilities, reverse=True)
    every = classifier.probabilities(image)
    assert every.flags.writeable
    np.testing.assert_allclose(every.sum(), 1, rtol=1e-5)
    assert found[0] == (NAMES[int(every.argmax())], every.max())
    batch = central_crop(image, (64, 96))[None]
    logits = run_once(classifier.model.apply, classifier.variables, batch)[0]
    np.testing.assert_allclose(every, jax.nn.softmax(logits), rtol=1e-4)


@pytest.mark.parametrize("size", [(80, 160), (9, 9), (1, 1), (300, 31)])
def test_only_the_middle_of_the_image_counts(size):
    image = np.zeros((*size, 3), np.uint8)
    rows, columns = (int((side - side * 0.875) / 2) for side in size)
    image[rows : size[0] - rows, columns : size[1] - columns] = (10, 200, 30)
    cropped = central_crop(image, (17, 23))
    assert cropped.shape == (17, 23, 3)
    assert (cropped == (10, 200, 30)).all()


def test_a_smooth_image_is_resized_bilinearly():
    ramp = np.broadcast_to(np.arange(160, dtype=np.uint8)[None, :, None], (80, 160, 3)).copy()
    resized = central_crop(ramp, (70, 70)).astype(float)
    np.testing.assert_allclose(resized[0, :, 0], 10 + (np.arange(70) + 0.5) * 2 - 0.5, atol=0.6)


@pytest.mark.parametrize(
    "image",
    [np.zeros((3, 3, 3)), np.zeros((3, 3), np.uint8), np.zeros((0, 3, 3), np.uint8), None, "x.jpg"],
)
def test_non_images_are_refused(classifier, image):
    with pytest.raises(DeepLabError, match="an image must"):
        classifier(image)


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs the program; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: (
        run([str(argument) for argument in arguments], Console()),
        *capsys.readouterr(),
    )


def test_predict_writes_the_classes_of_each_image(command, directory, photos, tmp_path):
    words = ["predict", f"--model={directory}", "--output=out", photos]
    status, printed, error = command(*words)
    assert (status, error) == (0, "")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert files == {"a_classes.json", "sub/b_classes.json"}
    found = json.loads((tmp_path / "out" / "sub" / "b_classes.json").read_text())
    assert found["image"] == "b.png"
    assert len(found["classes"]) == 5
    first = found["classes"][0]
    assert f"b.png: {first['class_name']} {100 * first['probability']:.1f} %" in printed
    status, printed, error = command(*words)
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert "a_classes.json exists" in error
    assert command(*words, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["predict", "--model=MODEL", "--output=out", "photos", "--probabilities"], "of pixels"),
        (
            ["predict", "--model=MODEL", "--output=out", "photos", "--flip", "--tile=65x65"],
            "omit --flip, --tile",
        ),
        (["predict", "--model=MODEL", "--output=out"], "no image to predict"),
        (["inspect", "--model=MODEL"], "--backbone=mobilenet_v2"),
        (["evaluate", "--model=MODEL", "--dataset=shapes", "--data_dir=data"], "whole images"),
    ],
)
def test_classifiers_refuse_segmentation_calls(
    command, directory, photos, tmp_path, words, complaint
):
    if words[0] == "evaluate":
        data = ["--num_train=1", "--num_val=1", "--size=40", f"--data_dir={tmp_path / 'data'}"]
        assert command("prepare", "shapes", *data)[0] == 0
    status, printed, error = command(*(word.replace("MODEL", str(directory)) for word in words))
    assert (status, printed, error.count("\n")) == (2, "", 1)
    assert complaint in error
    assert not (tmp_path / "out").exists()
