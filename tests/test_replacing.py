import os
from pathlib import Path

import pytest

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import (
    absolute,
    as_path,
    cache_directory,
    check_empty,
    check_new_directory,
    is_exported,
    replacing,
    replacing_directory,
    write_text,
)


def test_a_file_appears_whole_in_new_folders(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "new")
    assert (tmp_path / "a" / "b.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "b.txt"
    write_text(target, "old")

    def fail():
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise OSError("no space left on disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_tilde_at_the_start_of_a_path_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/runs") == tmp_path / "runs"
    assert str(absolute("~/runs")) == str(tmp_path / "runs")
    (tmp_path / "net.onnx").touch()
    assert is_exported("~/net.onnx")
    # Other names may begin with a tilde, too.
    assert str(as_path("~$draft.png")) == "~$draft.png"
    assert str(as_path("runs/~/a")) == "runs/~/a"


@pytest.mark.parametrize("place", ["gs:/bucket/run", Path("gs://bucket/run"), Path("s3://bucket")])
def test_a_path_in_a_bucket_without_a_slash_is_no_local_path(place):
    with pytest.raises(DeepLabError, match=r"paths in a bucket begin with (gs|s3)://; in Python"):
        as_path(place)
    assert as_path("other:/run") == Path("other:/run")


@pytest.mark.parametrize(
    ("output", "written"), [("link", "real"), ("to_nothing", "new"), ("deep/inner/..", "deep")]
)
def test_a_directory_is_written_where_a_link_or_dots_lead(tmp_path, output, written):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "to_nothing").symlink_to("new")
    for overwrite in (False, True):
        with replacing_directory(tmp_path / output, overwrite) as temporary:
            (temporary / "model.json").write_text("{}")
        assert (tmp_path / written / "model.json").read_text() == "{}"
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "to_nothing").is_symlink()


def test_a_directory_that_cannot_be_replaced_is_refused_before_the_work(tmp_path, monkeypatch):
    mount, here = tmp_path / "mount", tmp_path / "here"
    for path in (mount, here):
        path.mkdir()
    (tmp_path / "link").symlink_to("mount")
    monkeypatch.setattr("os.path.ismount", lambda path: path == os.path.realpath(mount))
    monkeypatch.chdir(here)
    for path in (mount, tmp_path / "link", here, Path()):
        with pytest.raises(DeepLabError, match="cannot be replaced; give a new directory inside"):
            check_new_directory(path)
        with (
            pytest.raises(DeepLabError, match="cannot be replaced"),
            replacing_directory(path, overwrite=True),
        ):
            raise AssertionError
    check_new_directory(mount / "model")
    check_empty(mount)


def test_a_new_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file" / "model")
    for path in (tmp_path / "file" / "model", tmp_path / "file" / "a" / "b", tmp_path / "link"):
        with pytest.raises(DeepLabError, match=r"file cannot be written \(File exists\)"):
            check_new_directory(path)
    check_new_directory(tmp_path / "new" / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_cache_directory_that_is_set_requires_no_home_directory(tmp_path, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("DEEPLAB_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "deeplab_jax"
