"""Visitors see models by name: no answer of `deeplab-jax app` holds a path of the server."""

import importlib.util
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from client import RefusedError, segment, upload
from PIL import Image
from stand_ins import write_workdir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of one name; a third, whose variables are missing."""
    folder = tmp_path_factory.mktemp("private-folder").resolve()
    write_workdir(folder / "first" / "voc", ["sky", "tree"])
    shutil.copytree(folder / "first" / "voc", folder / "second" / "voc")
    shutil.copytree(folder / "first" / "voc", folder / "broken")
    for entry in (folder / "broken").iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    return folder


@pytest.fixture(scope="module")
def served(models, tmp_path_factory):
    """The address of the real command's page, and the file of what it prints."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio, of the app extra, is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = ",".join(str(models / name) for name in ("first/voc", "second/voc", "broken"))
    words = [sys.executable, "-m", "deeplab_jax.cli.main", "app", f"--model={paths}"]
    printed = tmp_path_factory.mktemp("printed") / "log.txt"
    with printed.open("w") as log:
        server = subprocess.Popen(
            [*words, f"--port={port}"], stdout=log, stderr=log, env=dict(os.environ)
        )
        address = f"http://127.0.0.1:{port}/"
        try:
            while server.poll() is None and "the page is at" not in printed.read_text():
                time.sleep(0.2)
            assert server.poll() is None, printed.read_text()
            yield address, printed
        finally:
            server.terminate()
            server.wait(20)


def get(address, path):
    with urllib.request.urlopen(address + path, timeout=30) as answer:
        return answer.read().decode()


def uploaded(address):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, "PNG")
    return upload(address, buffer.getvalue())


@pytest.mark.parametrize("path", ["", "config", "gradio_api/info", "gradio_api/openapi.json"])
def test_pages_show_names_and_no_paths(served, models, path):
    try:
        text = get(served[0], path)
    except urllib.error.HTTPError as error:
        error.close()
        pytest.skip(f"this Gradio has no /{path}")
    assert str(models) not in text
    assert "private-folder" not in text
    if path in ("config", "gradio_api/info"):
        assert "first/voc" in text
        assert "second/voc" in text
        assert "broken" in text


def test_responses_contain_no_model_path(served, models):
    address, _ = served
    answer = str(segment(address, uploaded(address), "second/voc"))
    assert "private-folder" not in answer
    with pytest.raises(RefusedError, match="first/voc") as refused:
        segment(address, uploaded(address), str(models / "first" / "voc") + "x")
    assert "private-folder" not in str(refused.value).split("is not in")[-1]


def test_a_model_that_cannot_be_loaded_is_named_without_its_path(served, models):
    """The server's log has the path, the visitor does not."""
    address, printed = served
    with pytest.raises(RefusedError, match="broken") as refused:
        segment(address, uploaded(address), "broken")
    assert "private-folder" not in str(refused.value)
    assert str(models / "broken") in printed.read_text()
