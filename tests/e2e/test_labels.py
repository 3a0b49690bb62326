"""Datasets whose labels mean something else than they seem to, through the real commands."""

import shutil

import cv2
import numpy as np
import PIL.Image
import pytest

from deeplab_jax.data import open_dataset

SIZE = (36, 44)


@pytest.fixture
def source(tmp_path):
    """A folder of six pairs with masks of 0 and 255; val is images 4 and 5."""
    random = np.random.default_rng(0)
    for number in range(6):
        split = "val" if number > 3 else "train"
        image = random.integers(0, 256, (*SIZE, 3), np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        mask[number : 20 + number, 5:30] = 255
        for kind, pixels in (("images", image), ("masks", mask)):
            path = tmp_path / "raw" / kind / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels).save(path)
    (tmp_path / "raw/classes.txt").write_text("background\ncat\n")
    return tmp_path / "raw"


@pytest.fixture
def prepare(commands, source, tmp_path):
    """Runs `prepare folder` and returns what it prints: the last line of an error, or stdout."""

    def run(*words, status=0):
        command = ["prepare", "folder", f"--source={source}", f"--data_dir={tmp_path / 'data'}"]
        done = commands.run_here(*command, *words, status=status)
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1] if status else done.stdout

    return run


def label_of(tmp_path, split, index=0):
    return open_dataset("folder", tmp_path / "data", split)[index]["label"]


def test_one_class_is_refused_and_its_remedy_works(source, prepare, tmp_path):
    (source / "classes.txt").write_text("cat\n")
    line = prepare(status=2)
    assert str(source / "classes.txt") in line
    assert "background" in line
    assert not (tmp_path / "data").exists()
    (source / "classes.txt").write_text("background\ncat\n")
    prepare()
    assert np.unique(label_of(tmp_path, "train")).tolist() == [0, 1]


def test_the_summary_shows_what_makes_no_sense(source, prepare, tmp_path):
    """Objects in the opacity, hidden copies, equal images in train and val, an absent class."""
    for path in (source / "masks").rglob("*.png"):
        opacity = np.asarray(PIL.Image.open(path))
        pixels = np.dstack([np.zeros((*SIZE, 3), np.uint8), opacity])
        PIL.Image.fromarray(pixels).save(path)
    shutil.copytree(source / "images/val", source / "images/train/.ipynb_checkpoints")
    (source / "images/train/._0.png").write_bytes(b"Mac OS X")
    (source / "images/train/notes.txt").write_text("")
    PIL.Image.open(source / "images/train/2.png").save(source / "images/val/5.png", optimize=True)
    text = prepare()
    assert "4 train, 2 val images" in text
    assert "3 files left out" in text
    assert "hidden" in text
    assert "1 files left out" in text
    assert ".txt" in text
    assert "2 = 5" in text
    expected = np.zeros(SIZE, np.uint8)
    expected[1:21, 5:30] = 1
    assert np.array_equal(label_of(tmp_path, "train", 1), expected)


def test_a_label_that_may_lie_turned_needs_a_flag(source, prepare, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    path = source / "images/train/0.png"
    image = PIL.Image.open(path)
    image.save(path, exif=exif)
    line = prepare(status=2)
    assert "masks/train/0.png" in line
    assert "--masks_drawn_on=displayed" in line
    assert "EXIF" in line
    prepare("--masks_drawn_on=stored")
    dataset = open_dataset("folder", tmp_path / "data", "train")
    assert np.array_equal(dataset[0]["image"], np.asarray(image)[::-1, ::-1])
    assert np.array_equal(dataset[0]["label"][16:36, 14:39], np.ones((20, 25)))


# tests/data/test_one_picture.py holds each kind of file.
@pytest.mark.slow
def test_prepare_and_predict_refuse_further_bands_and_pages(
    commands, trained, source, prepare, tmp_path
):
    photos = tmp_path / "photos"
    shutil.copytree(source / "images/val", photos)
    (photos / "._4.png").write_bytes(b"Mac OS X")
    predict = ["predict", f"--model={trained}", photos, f"--output={tmp_path / 'out'}"]
    commands.run(*predict)
    assert sorted(path.name for path in (tmp_path / "out").glob("?.png")) == ["4.png", "5.png"]
    bands = np.random.default_rng(1).integers(0, 256, (*SIZE, 4), np.uint8)
    cv2.imwrite(str(photos / "near_infrared.tif"), bands)
    failed = commands.run(*predict, "--overwrite", status=2)
    assert "near_infrared.tif" in failed.stderr
    assert "band" in failed.stderr
    target = source / "images/train/0.png"
    pages = [PIL.Image.fromarray(bands[..., channel]) for channel in range(3)]
    pages[0].save(target.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    target.unlink()
    line = prepare(status=2)
    assert "images/train/0.tif" in line
    assert "3 pictures" in line
