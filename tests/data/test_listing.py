"""Hidden files are no data, wherever a directory is listed."""

import pathlib

import pytest

from deeplab_jax.data import prepared_names
from deeplab_jax.files import HIDDEN, list_images
from deeplab_jax.inference import plan_files
from deeplab_jax.inference.video_files import plan_videos
from deeplab_jax.pretrained.archives import find_weights

HIDDEN_FILES = [
    "._photo.jpg",
    ".photo.jpg",
    ".ipynb_checkpoints/photo-checkpoint.jpg",
    "deep/.ipynb_checkpoints/photo-checkpoint.jpg",
    "__MACOSX/photo.jpg",
    "@eaDir/photo.jpg",
    "$RECYCLE.BIN/photo.jpg",
    ".DS_Store",
    "Thumbs.db",
]


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    for name in [*HIDDEN_FILES, "deep/b.png", "a.jpg", "notes.txt", "anim.gif", "README"]:
        path = tmp_path / ".parent" / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (path.parent / "folder.jpg").mkdir()
    return path.parent


def test_images_are_listed_and_the_rest_is_counted(folder):
    listing = list_images(folder)
    assert [image.name for image in listing.images] == ["a.jpg", "b.png"]
    assert listing.left_out == {
        HIDDEN: len(HIDDEN_FILES),
        ".txt": 1,
        ".gif": 1,
        "without suffix": 1,
    }


def test_predict_takes_the_same(folder):
    assert [job.image.name for job in plan_files([folder], "out")] == ["a.jpg", "b.png"]


def test_videos_too(folder):
    for name in ("a.mp4", "._a.mp4", ".ipynb_checkpoints/a.mp4"):
        (folder / name).write_bytes(b"")
    assert [job.source.name for job in plan_videos([folder], "out")] == ["a.mp4"]


def test_weights_too(folder):
    for name in ("model.pth", "._model.pth"):
        (folder / name).write_bytes(b"")
    assert find_weights(folder).name == "model.pth"
    for name in ("model.ckpt.index", "._model.ckpt.index"):
        (folder / name).write_bytes(b"")
    assert find_weights(folder).name == "model.ckpt"


def test_prepared_datasets_too(tmp_path):
    for name in ("camvid", ".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name / "1.0.0").mkdir(parents=True)
        (tmp_path / name / "1.0.0/dataset_info.json").write_text("{}")
    assert prepared_names(tmp_path) == ["camvid"]
