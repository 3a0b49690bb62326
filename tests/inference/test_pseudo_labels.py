"""Pseudo-labels: the confidence rule by hand, and the folders that are written with them."""

import dataclasses
import functools
import pathlib
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from stand_ins import NUM_CLASSES, RedReader, WatchedPredictor, noise

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.cli.pseudo_label import _test_split, prepare_command
from deeplab_jax.data import open_dataset
from deeplab_jax.data.builders.registry import BUILDERS
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.data.preparation import prepare
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions, Predictor, find_images
from deeplab_jax.inference.pseudo_labels import named_images, pseudo_label, write_pseudo_labels
from deeplab_jax.reporter import Reporter

NAMES = ("sky", "tree", "road", "car")
PALETTE = bit_interleaved_palette(NUM_CLASSES)
# RedReader: the probability is e^x / (e^x + 3) with x = (green + 1) / 64, at least ½ from here on.
CONFIDENT_GREEN = 70


def test_the_confidence_rule_by_hand():
    probabilities = np.float32(
        [
            [[0.9, 0.05, 0.05], [0.1, 0.75, 0.15]],
            [[0.0, 0.25, 0.75], [0.4, 0.3, 0.3]],
        ]
    )
    # 0.75 is exact in float32: the smallest probability is included.
    found = pseudo_label(probabilities, 0.75)
    np.testing.assert_array_equal(found, [[0, 1], [2, 255]])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(pseudo_label(probabilities, 0.76), [[0, 255], [255, 255]])
    np.testing.assert_array_equal(pseudo_label(probabilities, 0.0), [[0, 1], [2, 0]])


def test_void_has_16_bits_with_many_classes():
    probabilities = np.zeros((1, 2, 300), np.float32)
    probabilities[0, 0, 255], probabilities[0, 1, :] = 1, 1 / 300
    found = pseudo_label(probabilities, 0.5)
    np.testing.assert_array_equal(found, [[255, 65535]])
    assert found.dtype == np.uint16


def predictor(names=NAMES):
    options = InferenceOptions(flip=True)
    return Predictor(RedReader(), {}, names, PALETTE, (65, 65), "red", options)


def test_the_command_for_the_next_step_keeps_the_intensity_range():
    def command(output, data_dir, limits=None):
        model = Predictor(RedReader(), {}, NAMES, PALETTE, intensity_range=limits)
        return prepare_command(model, pathlib.Path(output), data_dir)

    start = "deeplab-jax prepare folder --source="
    assert command("pseudo/one", "data") == f"{start}pseudo/one --name=one --data_dir=data"
    assert command("one", "gs://b/data", (0.0, 4095.5)) == (
        f"{start}one --name=one --data_dir=DIR --intensity_range=0.0,4095.5"
    )
    spaces = shlex.split(command("my data/näch st", "my data"))
    assert spaces[3:] == ["--source=my data/näch st", "--name=n_ch_st", "--data_dir=my data"]
    assert "--name=pseudo" in command(".", "data")


def test_the_probabilities_of_one_image_at_a_time_are_in_memory(tmp_path, labeled):
    model = WatchedPredictor(
        RedReader(), {}, NAMES, PALETTE, (65, 65), "red", InferenceOptions(flip=True)
    )
    write_images(tmp_path / "all", 3, first=5)
    assert write(tmp_path, labeled, tmp_path / "all", model).num_pseudo == 3


def write_images(folder, count, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = noise(20, 24, 30)
    for index in range(first, first + count):
        Image.fromarray(pixels[index]).save(folder / f"{index}.png")
    return pixels


@pytest.fixture
def labeled(tmp_path):
    """Three images of train and two of val, as prepared splits; the truth is class 1."""
    mine = tmp_path / "mine"
    for split, count, first in (("train", 3, 0), ("val", 2, 3)):
        write_images(mine / "images" / split, count, first)
        masks = mine / "masks" / split
        masks.mkdir(parents=True)
        for path in (mine / "images" / split).iterdir():
            Image.fromarray(np.ones((24, 30), np.uint8)).save(masks / path.name)
    (mine / "classes.txt").write_text("\n".join(NAMES))
    prepared(mine, tmp_path / "data")
    return {split: open_dataset("folder", tmp_path / "data", split) for split in ("train", "val")}


def prepared(source, data_dir, **options):
    make = functools.partial(BUILDERS["folder"], source=source, data_dir=data_dir, **options)
    prepare(make, reporter=Reporter())


def by_name(dataset):
    examples = [dataset[index] for index in range(len(dataset))]
    return {example["image_id"]: example for example in examples}


def write(tmp_path, labeled, images, model=None, **options):
    output = tmp_path / "pseudo"
    unlabeled = named_images(find_images([images], output), output)
    options = {"min_confidence": 0.5, "reporter": Reporter()} | options
    return write_pseudo_labels(model or predictor(), labeled, unlabeled, output, **options)


def test_the_folder_is_a_dataset_of_labels_and_confident_predictions(tmp_path, labeled):
    # Images 0 to 4 are labeled ones; 5 to 9 are new.
    pixels = write_images(tmp_path / "all", 10)
    summary = write(tmp_path, labeled, tmp_path / "all")
    confident = pixels[5:10, ..., 1] >= CONFIDENT_GREEN
    assert summary[:3] == (5, 5, 5)
    assert summary.kept == pytest.approx(confident.mean())
    prepared(tmp_path / "pseudo", tmp_path / "new")
    train, val = (open_dataset("folder", tmp_path / "new", split) for split in ("train", "val"))
    assert list(by_name(val)) == ["3", "4"]
    found = by_name(train)
    names = {*(f"labeled/{at}" for at in range(3)), *(f"pseudo/{at}" for at in range(5, 10))}
    assert set(found) == names
    for index in range(3):
        np.testing.assert_array_equal(found[f"labeled/{index}"]["image"], pixels[index])
        assert (found[f"labeled/{index}"]["label"] == 1).all()
    for index in range(5, 10):
        np.testing.assert_array_equal(found[f"pseudo/{index}"]["image"], pixels[index])
        expected = np.where(confident[index - 5], pixels[index, ..., 0] % NUM_CLASSES, 255)
        np.testing.assert_array_equal(found[f"pseudo/{index}"]["label"], expected)
    assert train.descriptor.class_names == NAMES


def test_examples_of_joined_splits_may_have_equal_names(tmp_path):
    mine, pixels = tmp_path / "mine", noise(20, 24, 30)
    for index, split in enumerate(("train", "val")):
        for kind, picture in (("images", pixels[index]), ("masks", pixels[index, ..., 0] % 2)):
            folder = mine / kind / split
            folder.mkdir(parents=True)
            Image.fromarray(picture).save(folder / "0.png")
    (mine / "classes.txt").write_text("\n".join(NAMES))
    prepared(mine, tmp_path / "data")
    labeled = {
        name: open_dataset("folder", tmp_path / "data", split)
        for name, split in (("train", "train+val"), ("val", "val"))
    }
    write_images(tmp_path / "all", 2, first=5)
    for _ in range(2):  # The second call resumes.
        assert write(tmp_path, labeled, tmp_path / "all").num_labeled == 3
    for index, name in enumerate(("0.png", "0_2.png")):
        image, mask = (
            np.asarray(Image.open(tmp_path / "pseudo" / kind / "train" / "labeled" / name))
            for kind in ("images", "masks")
        )
        np.testing.assert_array_equal(image, pixels[index])
        np.testing.assert_array_equal(mask, pixels[index, ..., 0] % 2)


def test_images_with_other_bands_are_arrays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 24, 30, 4), np.uint16)
    for index in range(6):
        split = "train" if index < 2 else "val"
        folder = tmp_path / "mine" / "images" / split if index < 4 else tmp_path / "more"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{index}.npy", pixels[index])
        if index < 4:
            masks = tmp_path / "mine" / "masks" / split
            masks.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ones((24, 30), np.uint8)).save(masks / f"{index}.png")
    (tmp_path / "mine" / "classes.txt").write_text("\n".join(NAMES))
    prepared(tmp_path / "mine", tmp_path / "data", bands="all")
    labeled = {name: open_dataset("folder", tmp_path / "data", name) for name in ("train", "val")}
    with pytest.raises(
        DeepLabError, match=r"red takes three bands of uint8 \(RGB\), but folder has"
    ):
        write(tmp_path, labeled, tmp_path / "more")
    network = RedReader(
        dataclasses.replace(RedReader().architecture, in_channels=4, image_dtype="uint16")
    )
    model = Predictor(network, {}, NAMES, PALETTE, (65, 65), "bands")
    for _ in range(2):  # The second call resumes.
        assert write(tmp_path, labeled, tmp_path / "more", model).num_pseudo == 2
    prepared(tmp_path / "pseudo", tmp_path / "new", bands="all")
    found = by_name(open_dataset("folder", tmp_path / "new", "train"))
    for index in (4, 5):
        np.testing.assert_array_equal(found[f"pseudo/{index}"]["image"], pixels[index])


def test_an_interrupted_call_resumes(tmp_path, labeled):
    write_images(tmp_path / "all", 8)
    first = write(tmp_path, labeled, tmp_path / "all")
    files = {path: path.read_bytes() for path in (tmp_path / "pseudo").rglob("*.png")}
    times = {path: path.stat().st_mtime_ns for path in files}
    lost = tmp_path / "pseudo" / "masks" / "train" / "pseudo" / "6.png"
    lost.unlink()
    assert write(tmp_path, labeled, tmp_path / "all") == first
    assert {path: path.read_bytes() for path in files} == files
    rewritten = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert rewritten == {lost, tmp_path / "pseudo" / "images" / "train" / "pseudo" / "6.png"}


def test_other_pixels_under_the_name_of_a_labeled_image_are_refused(tmp_path, labeled):
    pixels = write_images(tmp_path / "all", 0)
    pages = [Image.fromarray(page) for page in pixels[5:7]]
    pages[0].save(tmp_path / "all" / "5.tif", save_all=True, append_images=pages[1:])
    first = write(tmp_path, labeled, tmp_path / "all", page=1)
    files = {path: path.read_bytes() for path in (tmp_path / "pseudo").rglob("*.*")}
    message = r"pseudo/5\.png was written earlier, but .*the given image 5; give the same"
    with pytest.raises(DeepLabError, match=message):
        write(tmp_path, labeled, tmp_path / "all", page=2)
    Image.fromarray(pixels[6]).save(tmp_path / "all" / "5.jpg")
    (tmp_path / "all" / "5.tif").rename(tmp_path / "5.tif")
    with pytest.raises(DeepLabError, match=message):
        write(tmp_path, labeled, tmp_path / "all")
    assert {path: path.read_bytes() for path in files} == files
    (tmp_path / "all" / "5.jpg").unlink()
    (tmp_path / "5.tif").rename(tmp_path / "all" / "5.tif")
    assert write(tmp_path, labeled, tmp_path / "all", page=1) == first


def test_a_folder_of_volumes_beside_images_is_refused(tmp_path, labeled, capsys):
    write_images(tmp_path / "all", 6)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").touch()
    words = [f"--model={tmp_path}", "--dataset=folder", f"--data_dir={tmp_path / 'data'}"]
    words += [f"--output={tmp_path / 'pseudo'}", str(tmp_path / "all"), str(tmp_path / "scans")]
    assert run(["pseudo-label", *words], Console()) == 2
    assert "scans/a.nii.gz: a NIfTI file contains" in capsys.readouterr().err
    assert not (tmp_path / "pseudo").exists()


def test_held_out_images_get_no_pseudo_label(tmp_path, labeled):
    write_images(tmp_path / "all", 7)
    train, val = labeled["train"], labeled["val"]
    summary = write(tmp_path, {"train": train}, tmp_path / "all", held_out=val)
    assert summary[:3] == (3, 2, 5)
    names = {path.stem for path in (tmp_path / "pseudo" / "images" / "train" / "pseudo").iterdir()}
    assert names == {"5", "6"}
    assert not (tmp_path / "pseudo" / "images" / "val").exists()


def test_the_command_holds_out_the_split_test(tmp_path, labeled):
    def held_out(data_dir, train="train", val="val"):
        given = {"dataset": "folder", "data_dir": tmp_path / data_dir}
        return _test_split(SimpleNamespace(**given, train_split=train, validation_split=val))

    assert held_out("data") is None
    mine = tmp_path / "mine"
    write_images(mine / "images" / "test", 1, 5)
    (mine / "masks" / "test").mkdir()
    Image.fromarray(np.ones((24, 30), np.uint8)).save(mine / "masks" / "test" / "5.png")
    prepared(mine, tmp_path / "second")
    dataset = held_out("second")
    assert (dataset.split, len(dataset)) == ("test", 1)
    assert held_out("second", train="train+test") is None
    assert held_out("second", val="test[:50%]") is None


@pytest.mark.parametrize("name", ["clip.wmv", "clip.FLV", "clip.mp4"])
def test_a_video_is_refused_by_name(tmp_path, labeled, capsys, name):
    (tmp_path / name).touch()
    words = [f"--model={tmp_path}", "--dataset=folder", f"--data_dir={tmp_path / 'data'}"]
    words += [f"--output={tmp_path / 'pseudo'}", str(tmp_path / name)]
    assert run(["pseudo-label", *words], Console()) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{name}: pseudo-label reads images only; save frames of the video" in printed
    assert not (tmp_path / "pseudo").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_confidence": 0.6}, "written with another value of min_confidence; give another"),
        ({"min_confidence": 1.5}, r"min_confidence=1\.5 must be in \[0, 1\)"),
        (
            {"model": predictor(("sky", "tree", "car", "road"))},
            "class 2 of red is 'car', but 'road'",
        ),
        ({"model": predictor(NAMES[:3])}, "red has 3 classes, but folder has 4"),
    ],
)
def test_other_settings_and_models_are_refused(tmp_path, labeled, change, message):
    write_images(tmp_path / "all", 6)
    write(tmp_path, labeled, tmp_path / "all")
    before = sorted((tmp_path / "pseudo").rglob("*"))
    with pytest.raises(DeepLabError, match=message):
        write(tmp_path, labeled, tmp_path / "all", **change)
    assert sorted((tmp_path / "pseudo").rglob("*")) == before


def test_nothing_to_label_and_equal_names_are_refused(tmp_path, labeled):
    write_images(tmp_path / "all", 5)
    with pytest.raises(DeepLabError, match="all 5 unlabeled images are copies of labeled images"):
        write(tmp_path, labeled, tmp_path / "all")
    write_images(tmp_path / "all", 6)
    (tmp_path / "all" / "5.png").rename(tmp_path / "all" / "5.bmp")
    write_images(tmp_path / "all", 6)
    with pytest.raises(DeepLabError, match=r"5\.bmp and .*5\.png have the same name"):
        write(tmp_path, labeled, tmp_path / "all")


def test_a_directory_with_other_files_is_not_written(tmp_path, labeled):
    write_images(tmp_path / "all", 6)
    write_images(tmp_path / "pseudo", 1)
    with pytest.raises(DeepLabError, match="pseudo exists and is not an empty directory"):
        write(tmp_path, labeled, tmp_path / "all")
    (tmp_path / "pseudo" / "pseudo_labels.json").write_text("{")
    with pytest.raises(DeepLabError, match="invalid JSON"):
        write(tmp_path, labeled, tmp_path / "all")
    (tmp_path / "pseudo" / "pseudo_labels.json").write_text("[]")
    with pytest.raises(DeepLabError, match="was not written by this program"):
        write(tmp_path, labeled, tmp_path / "all")
