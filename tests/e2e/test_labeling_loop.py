"""The loop of training, labeling and training again, by real processes on a stranger's folder."""

import json

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data import open_dataset
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.visualize import write_class_map, write_picture

pytestmark = pytest.mark.slow
LABELED, COUNT = 12, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with more images than masks."""
    folder = tmp_path_factory.mktemp("stranger")
    for index in range(COUNT):
        image, class_map = draw_scene(seed=0, split=0, index=index, size=64)
        write_picture(folder / "mine" / "images" / f"{index:02}.png", image)
        if index < LABELED:
            mask = folder / "mine" / "masks" / f"{index:02}.png"
            write_class_map(mask, class_map, SHAPES.palette)
    (folder / "mine" / "classes.txt").write_text("\n".join(SHAPES.class_names))
    return folder


def train(commands, folder, name, workdir):
    data = (f"data.name={name}", f"data.data_dir={folder / 'data'}", "training.num_steps=4")
    commands.run(*commands.train_words(workdir, *data))


@pytest.fixture(scope="module")
def first(commands, folder):
    """The workdir of the first model, trained on the images that have masks."""
    source, data_dir = f"--source={folder / 'mine'}", f"--data_dir={folder / 'data'}"
    commands.run("prepare", "folder", source, "--name=mine", "--skip_bad", data_dir)
    train(commands, folder, "folder/mine", folder / "runs" / "mine")
    return folder / "runs" / "mine"


def test_the_loop(commands, folder, first):
    data_dir, model = f"--data_dir={folder / 'data'}", first
    for round_name in ("one", "two"):
        output = folder / "pseudo" / round_name
        words = (
            *("pseudo-label", f"--model={model}", "--dataset=folder/mine", data_dir),
            *(f"--output={output}", "--min_confidence=0.2", folder / "mine" / "images"),
        )
        said = commands.run(*words)
        assert f"{COUNT - LABELED} images with pseudo-labels, {LABELED} left out" in said.stdout
        assert f"--source={output} --name={round_name}" in said.stderr
        masks = {path: path.read_bytes() for path in output.rglob("pseudo/*.png")}
        assert len(masks) == 2 * (COUNT - LABELED)
        # Repeated, the command writes nothing and reports the same.
        assert commands.run(*words).stdout == said.stdout
        assert {path: path.read_bytes() for path in masks} == masks
        commands.run("prepare", "folder", f"--source={output}", f"--name={round_name}", data_dir)
        name, model = f"folder/{round_name}", folder / "runs" / round_name
        train(commands, folder, name, model)
    splits = {split: len(open_dataset(name, folder / "data", split)) for split in ("train", "val")}
    before = {split: len(open_dataset("folder/mine", folder / "data", split)) for split in splits}
    assert splits == before | {"train": before["train"] + COUNT - LABELED}
    assert sum(before.values()) == LABELED
    settings = json.loads((output / "pseudo_labels.json").read_text())
    assert settings["inference"]["scales"] == [0.75, 1.0, 1.25]
    assert settings["inference"]["flip"]


def test_confident_pixels_have_the_classes_of_predict(commands, folder, first):
    output, images = folder / "plain", folder / "mine" / "images"
    same = (f"--model={first}", "--scales=1", "--noflip")
    commands.run(
        *("pseudo-label", *same, "--dataset=folder/mine", f"--data_dir={folder / 'data'}"),
        *("--min_confidence=0.3", f"--output={output}", images),
    )
    predicted = folder / "predicted"
    commands.run("predict", f"--model={first}", "--probabilities", f"--output={predicted}", images)
    for mask in (output / "masks" / "train" / "pseudo").iterdir():
        label = np.asarray(Image.open(mask))
        found = np.load(predicted / f"{mask.stem}_probabilities.npz")["probabilities"]
        class_map = np.asarray(Image.open(predicted / mask.name))
        np.testing.assert_array_equal(label[label != 255], class_map[label != 255])
        # The stored probabilities have 16 bits.
        confidence = found.max(axis=-1)
        assert (confidence[label != 255] > 0.299).all()
        assert (confidence[label == 255] < 0.301).all()


def test_mistakes_are_one_line(commands, first, folder, read_lines):
    images = folder / "mine" / "images"
    words = ("pseudo-label", "--dataset=folder/mine", f"--data_dir={folder / 'data'}")
    output = f"--output={folder / 'never'}"
    failed = commands.run(*words, output, f"--model={first}", folder / "nowhere", status=2)
    (line,) = read_lines(failed.stderr)
    assert "no such file or folder" in line
    failed = commands.run(
        *words, output, f"--model={first}", "--train_split=training", images, status=2
    )
    assert "unknown split 'training'" in read_lines(failed.stderr)[-1]
    assert not (folder / "never").exists()
