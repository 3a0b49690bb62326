import pytest

from deeplab_jax.files import absolute, as_path, is_exported, replacing, write_text


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
