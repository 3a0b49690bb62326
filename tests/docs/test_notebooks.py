"""The notebooks hold no outputs, install first, and run at small size."""

import json
import logging
import pathlib
import re

import pytest

from deeplab_jax.pretrained import find_pretrained

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
PUBLISHED, STORED = "deeplabv3_mobilenetv2_voc_uint8", "deeplabv3_mnv2_voc_513_uint8.tflite"
# Assignments that decide how long a notebook runs, at the size of the test.
SMALL = {"STEPS": 2, "NUM_TRAIN": 16, "NUM_VALIDATION": 4}


def cells(path: pathlib.Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"]


def code(path: pathlib.Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]


def small(source: str) -> str:
    """Returns a cell in which the assignments of `SMALL` are replaced."""
    for name, value in SMALL.items():
        source = re.sub(rf"\b{name}(, NUM_VALIDATION)? = [\d, ]+$", "", source, flags=re.MULTILINE)
        source = re.sub(rf"\b{name}\b", str(value), source)
    return source


def test_three_notebooks_exist():
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    text = path.read_text("utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    for cell in cells(path):
        assert cell["cell_type"] == "markdown" or cell["outputs"] == []
        assert cell.get("execution_count") is None
    assert '"pip", "install"' in code(path)[0]
    assert cells(path)[0]["cell_type"] == "markdown"
    for source in code(path):
        compile(source, str(path), "exec")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, request, tmp_path, monkeypatch, caplog):
    request.addfinalizer(lambda: logging.getLogger("deeplab_jax").setLevel(logging.NOTSET))
    if PUBLISHED in "".join(code(path)[1:2]):
        pytest.importorskip("skimage")
        weights = request.getfixturevalue("shared") / "weights" / STORED
        monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
        place = tmp_path / "cache" / "pretrained" / find_pretrained(PUBLISHED).file_name
        place.parent.mkdir(parents=True)
        place.write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for source in code(path):
        exec(compile(small(source), str(path), "exec"), names)
    # Training takes minutes, so the notebook must show its progress.
    trains = "deeplab_jax.train(" in "".join(code(path))
    assert trains == ("validation mean IoU" in caplog.text)
