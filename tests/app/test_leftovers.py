"""Files and directories that Gradio does not remove, and files that it has removed."""

import os
import time
import types

import pytest

from deeplab_jax.app.page import _errors_shown, remove_leftovers


def test_interrupted_uploads_and_empty_directories_are_removed(tmp_path):
    for name in ("used", "empty", "new"):
        (tmp_path / name).mkdir()
    for name in ("tmp_interrupted", "tmp_uploading", "used/image.png"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    old = time.time() - 301
    for name in ("tmp_interrupted", "empty", "used/image.png", "used"):
        os.utime(tmp_path / name, (old, old))
    remove_leftovers(tmp_path, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"tmp_uploading", "used", "new"}
    assert (tmp_path / "used" / "image.png").is_file()


def test_a_directory_that_was_deleted_is_ignored(tmp_path):
    remove_leftovers(tmp_path / "missing", 300)


def test_a_request_for_a_file_that_was_removed_states_this(tmp_path):
    gradio = types.SimpleNamespace(Error=ValueError)
    with (
        pytest.raises(ValueError, match="upload the image again"),
        _errors_shown(gradio, tmp_path / "image.png", "red"),
    ):
        pass
