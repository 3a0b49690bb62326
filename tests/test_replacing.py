import pytest

from deeplab_jax.files import replacing, write_text


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
