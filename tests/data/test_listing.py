"""Hidden files are no data, wherever a directory is listed."""

import pathlib

import pytest

from deeplab_jax.data import prepared_names
from deeplab_jax.data.images import read_image
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import plan_files
from deeplab_jax.inference.video_files import plan_videos
from deeplab_jax.listing import HIDDEN, absolute, list_images
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


def test_broken_links_below_a_hidden_directory_are_ignored(folder):
    deep = folder / ".venv" / "bin"
    deep.mkdir(parents=True)
    (deep / "python").symlink_to(folder / "nothing")
    assert len(list_images(folder).images) == 2
    (folder / "python").symlink_to(folder / "nothing")
    with pytest.raises(DeepLabError, match="python: broken symbolic link"):
        list_images(folder)


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


def test_links_are_followed_without_cycles(tmp_path):
    (tmp_path / "photos/deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("photos/a.jpg", "photos/deep/b.jpg", "elsewhere/c.jpg"):
        (tmp_path / name).write_bytes(b"")
    photos = tmp_path / "photos"
    (photos / "deep/up").symlink_to(photos)
    (photos / "deep/self").symlink_to("self")
    (photos / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "d.jpg").symlink_to(photos / "a.jpg")
    with pytest.raises(DeepLabError, match=r"deep/self: broken symbolic link to self"):
        list_images(photos)
    (photos / "deep/self").unlink()
    names = ["a.jpg", "d.jpg", "deep/b.jpg", "more/c.jpg"]
    assert [path.relative_to(photos).as_posix() for path in list_images(photos).images] == names
    assert [job.image.name for job in plan_files([photos], tmp_path / "out")] == [
        "a.jpg",
        "d.jpg",
        "b.jpg",
        "c.jpg",
    ]


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "e.jpg").symlink_to("gone.jpg")
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    (tmp_path / ".#lock").symlink_to("user@host")
    listing = list_images(tmp_path)
    assert listing.images == [tmp_path / "e.jpg"]
    assert listing.left_out == {HIDDEN: 1, "broken symbolic link notes.txt": 1}
    for read in (read_image, lambda path: plan_files([path], "out")):
        with pytest.raises(DeepLabError, match=r"e\.jpg: broken symbolic link to gone\.jpg"):
            read(tmp_path / "e.jpg")
    (tmp_path / "folder").symlink_to("gone")
    with pytest.raises(DeepLabError, match=r"folder is a broken symbolic link to gone"):
        read_image(tmp_path / "folder/a.png")


def test_a_file_with_another_suffix_is_named(tmp_path):
    (tmp_path / "mask.bmp").write_bytes(b"")
    with pytest.raises(DeepLabError, match=r"mask\.png: no such file, but there is mask\.bmp"):
        read_image(tmp_path / "mask.png")


def test_a_tilde_that_is_no_home_directory_is_part_of_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute("~draft/images") == tmp_path / "~draft/images"
    assert absolute("~/images") == tmp_path / "home/images"
