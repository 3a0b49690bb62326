"""The page in a real browser."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver", reason="it drives the browser")
waiting = pytest.importorskip("selenium.webdriver.support.ui")
CSS = "css selector"

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)


@pytest.fixture
def browser(tmp_path):
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def test_an_image_is_dropped_and_its_mask_shown(address, browser, tmp_path):
    ramp = np.zeros((120, 160, 3), np.uint8)
    ramp[..., 0] = np.arange(160) // 40
    ramp[..., 1] = 200
    path = tmp_path / "ramp.png"
    Image.fromarray(ramp).save(path)
    browser.get(address)
    wait = waiting.WebDriverWait(browser, 60)
    field = wait.until(lambda page: page.find_element(CSS, "input[type=file]"))
    field.send_keys(str(path))
    wait.until(lambda page: "25.0" in page.find_element(CSS, "body").text)
    body = browser.find_element(CSS, "body").text
    for told in ("sky", "tree", "<b>road</b>", "car", "network"):
        assert told in body
    shown = wait.until(lambda page: page.find_elements(CSS, "img"))
    wait.until(lambda page: all(image.get_property("naturalWidth") for image in shown))
    target = os.environ.get("DEEPLAB_SCREENSHOT", str(tmp_path / "page.png"))
    assert browser.save_screenshot(target)
    assert pathlib.Path(target).stat().st_size > 10_000
