"""Exported pages, in Chromium; and ONNX files in onnxruntime-web, in Node.

The slow tests require what `make web` installs, and Chromium ($CHROMIUM, or `chromium` on the
path).
"""

import contextlib
import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import skimage.data
from memory_bucket import use_memory_bucket
from PIL import Image
from small import NAMES, PALETTE, small_predictor
from stand_ins import write_workdir
from test_exported_networks import NETWORKS

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export import runtimes
from deeplab_jax.export.program import ExportOptions
from deeplab_jax.export.runtimes import export, load_exported
from deeplab_jax.files import as_path
from deeplab_jax.inference import load

pytest.importorskip("onnx")
from deeplab_jax.export import web

HERE = pathlib.Path(__file__).parent
NPM = HERE.parents[1] / ".venv" / "web"
WEIGHTS = "deeplabv3_mnv2_dm05_voc_257_float.tflite"
PHOTOGRAPHS = ("astronaut", "cat", "coffee")


@pytest.fixture(scope="module")
def predictor():
    architecture, overrides = NETWORKS["crop"]
    return small_predictor(architecture, **overrides).with_inference_size((65, 81))


@pytest.fixture
def package(tmp_path):
    """A directory that has the names of the npm package onnxruntime-web."""
    package = tmp_path / "site" / "node_modules" / web.PACKAGE
    (package / "dist").mkdir(parents=True)
    for name in web.RUNTIME_FILES:
        (package / "dist" / name).write_text(name)
    (package / "package.json").write_text('{"version": "1.2.3"}')
    return package


@pytest.fixture
def below_package(package, monkeypatch):
    """The current directory is one from which Node finds the package."""
    (package.parents[1] / "inner").mkdir()
    monkeypatch.chdir(package.parents[1] / "inner")


@pytest.mark.usefixtures("below_package")
def test_a_page_contains_all_that_it_loads(predictor, tmp_path):
    page = tmp_path / "page"
    export(predictor, page, "web")
    names = {str(path.relative_to(page)) for path in page.rglob("*") if path.is_file()}
    runtime = {f"runtime/{name}" for name in (*web.RUNTIME_FILES, "package.json")}
    assert names == {*web.PAGE_FILES, web.NETWORK, web.DESCRIPTION} | runtime
    described = json.loads((page / web.DESCRIPTION).read_text("utf-8"))
    assert described["class_names"] == list(NAMES)
    assert described["palette"] == [list(color) for color in PALETTE]
    assert described["runtime"] == "onnxruntime-web 1.2.3"
    assert described["sizes"]["minimum"] == [65, 81]
    assert described["sizes"]["fixed"] is None
    assert load_exported(page).metadata.input["shape"] == [1, None, None, 3]
    with pytest.raises(DeepLabError, match=r"an exported web page, .* give its network, .*onnx"):
        load(page)
    # An earlier page is replaced as a whole, also through a link.
    (page / "runtime" / "earlier.mjs").write_text("")
    link = tmp_path / "link"
    link.symlink_to("page")
    export(predictor, link, "web", ExportOptions(size=(65, 65)))
    assert link.is_symlink()
    assert not (page / "runtime" / "earlier.mjs").exists()
    assert json.loads((page / web.DESCRIPTION).read_text())["sizes"]["fixed"] == [65, 65]


@pytest.mark.usefixtures("below_package")
def test_what_a_page_does_not_support_is_refused(predictor, tmp_path):
    page = tmp_path / "page"
    for options, reason in [
        (ExportOptions(argmax=False), "return class maps; omit --prep"),
        (ExportOptions(preprocessing=False), "return class maps; omit --prep"),
        (ExportOptions(batch=2), "one image at a time"),
    ]:
        with pytest.raises(DeepLabError, match=reason):
            export(predictor, page, "web", options)
    five = small_predictor("deeplab_v3", **NETWORKS["v3"][1], in_channels=5, preprocessing="none")
    with pytest.raises(DeepLabError, match="5 bands of uint8"):
        export(five, page, "web")
    assert not page.exists()
    page.mkdir()
    (page / "thesis.tex").write_text("")
    with pytest.raises(DeepLabError, match="not an exported page"):
        export(predictor, page, "web")
    assert [path.name for path in page.iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("below_package")
def test_only_a_page_is_replaced_in_a_bucket(predictor, tmp_path, monkeypatch, capsys):
    use_memory_bucket(monkeypatch)
    other, page = as_path("s3://bucket/datasets"), as_path("s3://bucket/page")
    (other / "voc").mkdir(parents=True)
    (other / "voc" / "records").write_text("")
    with pytest.raises(DeepLabError, match="not an exported page"):
        export(predictor, str(other), "web")
    workdir = write_workdir(tmp_path / "workdir", ["sky", "tree"])
    words = [f"--model={workdir}", "--format=web", f"--output={other}", "--overwrite"]
    monkeypatch.setattr(runtimes, "export", lambda *given: pytest.fail("the work was started"))
    assert run(["export", *words], Console()) == 2
    assert "not an exported page" in capsys.readouterr().err
    assert (other / "voc" / "records").exists()
    export(predictor, str(page), "web")
    (page / "runtime" / "earlier.mjs").write_text("")
    export(predictor, str(page), "web")
    assert not (page / "runtime" / "earlier.mjs").exists()
    assert web.is_page(page)


def test_the_runtime_is_found_or_the_command_that_installs_it_is_named(
    package, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeepLabError, match="npm install onnxruntime-web"):
        web.find_runtime()
    with pytest.raises(DeepLabError, match=f"not found in {tmp_path}"):
        web.find_runtime(tmp_path)
    for directory in (package, package.parent, package.parents[1]):
        assert web.find_runtime(directory) == package


def test_runtime_requires_the_format_web(tmp_path, capsys):
    words = ["--model=m", "--format=onnx", f"--output={tmp_path / 'x'}", "--runtime=node_modules"]
    assert run(["export", *words], Console()) == 2
    assert "--runtime requires --format=web" in capsys.readouterr().err


# --- In Node and Chromium -----------------------------------------------------------------------


def installed_packages():
    """Returns the environment for Node; skips the test if something is missing."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    if not (NPM / "node_modules" / web.PACKAGE).is_dir():
        pytest.skip("onnxruntime-web is not installed; `make web` installs it")
    return os.environ | {"NODE_PATH": str(NPM / "node_modules")}


def run_node(script, *words):
    """Returns the JSON that a script prints."""
    command = ["node", str(HERE / script), *map(str, words)]
    done = subprocess.run(
        command, env=installed_packages(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def published(shared, tmp_path_factory):
    """Model directory of a published network."""
    model = tmp_path_factory.mktemp("published") / "model"
    assert run(["convert", str(shared / "weights" / WEIGHTS), f"--output={model}"], Console()) == 0
    return model


@pytest.mark.slow
@pytest.mark.parametrize("size", ["any", "257x257"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_same_classes_in_node(published, tmp_path, size, dtype):
    installed_packages()
    path = tmp_path / "network.onnx"
    words = [f"--model={published}", "--format=onnx", f"--output={path}", f"--size={size}"]
    assert run(["export", *words, f"--dtype={dtype}"], Console()) == 0
    predictor = load(published)
    for photograph in PHOTOGRAPHS:
        image = np.ascontiguousarray(getattr(skimage.data, photograph)()[:257, 40:297])
        (tmp_path / "image").write_bytes(image.tobytes())
        run_node("run_in_node.cjs", path, tmp_path / "image", 257, 257, tmp_path / "classes")
        found = np.fromfile(tmp_path / "classes", np.int32).reshape(257, 257)
        assert np.mean(found == predictor(image)) >= {"float32": 0.999, "float16": 0.99}[dtype]


@contextlib.contextmanager
def serving(directory: pathlib.Path) -> Iterator[str]:
    """Serves a directory as `python -m http.server` does, and yields its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def visit(published, tmp_path_factory):
    """What a visit of the page of a published network showed, and the folder of its pictures."""
    installed_packages()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed; set $CHROMIUM to a Chromium or Chrome")
    folder = tmp_path_factory.mktemp("visit")
    words = [f"--model={published}", "--format=web", f"--output={folder / 'page'}"]
    assert run(["export", *words, f"--runtime={NPM}"], Console()) == 0
    Image.fromarray(skimage.data.cat()).save(folder / "cat.png")
    with serving(folder / "page") as url:
        seen = run_node("visit_page.cjs", chromium, url, folder / "cat.png", folder)
    return seen | {"url": url, "folder": folder}


@pytest.mark.slow
def test_classes_in_the_page_equal_those_of_predict(visit, published):
    # The page shrinks larger images to the side of the model's inference size.
    image = skimage.data.cat()
    height, width = visit["height"], visit["width"]
    found = np.fromfile(visit["folder"] / "classes.bin", np.int32).reshape(height, width)
    assert (height, width) == image.shape[:2]
    assert np.mean(found == load(published)(image)) >= 0.999
    assert "cat" in visit["legend"]
    assert f"{width} × {height} pixels" in visit["status"]
    assert " ms" in visit["status"]


@pytest.mark.slow
def test_the_page_requests_nothing_from_other_hosts(visit):
    assert all(url.startswith((visit["url"], "blob:", "data:")) for url in visit["requests"])
    assert visit["problems"] == []


@pytest.mark.slow
def test_the_page_can_be_operated_with_the_keyboard(visit):
    assert visit["focused"] == ["file", "camera", "side", "opacity"]


@pytest.mark.slow
def test_the_page_states_what_is_wrong(visit):
    assert "notes.txt is not an image" in visit["notAnImage"]
    assert "denied access to the camera" in visit["refused"]
    assert "could not be loaded: model.onnx: 404" in visit["notLoaded"]


@pytest.mark.slow
def test_the_page_segments_the_camera(visit):
    assert min(visit["frame"]) > 100
    # A double click starts one stream.
    assert visit["streams"] == 1
    assert visit["button"] == "Start the camera"
