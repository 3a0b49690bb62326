"""The page in a real browser, driven as docs/draw_app.py drives it for the picture of app.md."""

import importlib.util
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
pytest.importorskip("selenium.webdriver", reason="it drives the browser")
pytest.importorskip("skimage", reason="the script imports it")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location(
        "draw_app", ROOT / "docs" / "draw_app.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def browser(script, tmp_path):
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and its driver are not installed")
    with script.browser(tmp_path / "profile") as driver:
        yield driver


def test_an_image_is_dropped_and_its_mask_shown(address, script, browser, tmp_path):
    ramp = np.zeros((120, 160, 3), np.uint8)
    ramp[..., 0] = np.arange(160) // 40
    ramp[..., 1] = 200
    path = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(path)
    script.segment(browser, address, path, "25.0")
    body = browser.find_element(script.CSS, "body").text
    for told in ("sky", "tree", "<b>road</b>", "car", "network"):
        assert told in body
    assert browser.title == "deeplab_jax"
    target = os.environ.get("DEEPLAB_SCREENSHOT", str(tmp_path / "page.png"))
    assert browser.save_screenshot(target)
    assert pathlib.Path(target).stat().st_size > 10_000
