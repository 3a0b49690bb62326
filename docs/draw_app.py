"""Writes the screenshot of guides/app.md: `python docs/draw_app.py [--model=M] [--output=PNG]`.

Serves the page of `deeplab-jax app` with a published network, uploads a photograph of a cat from
scikit-image in a headless Chromium, and writes a screenshot. Requires the extra `app`,
scikit-image, selenium, chromium and chromedriver.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import skimage
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[1]
MODEL = "deeplabv3_mobilenetv2_voc_uint8"
SECONDS = 300
CSS = "css selector"
SIZE = (1400, 760)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@contextmanager
def served(model: str) -> Iterator[str]:
    """Runs `deeplab-jax app` with a model while the context is open; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "deeplab_jax.cli.main", "app", f"--model={model}"]
    server = subprocess.Popen([*words, f"--port={port}"], cwd=ROOT)
    address = f"http://127.0.0.1:{port}/"
    try:
        while server.poll() is None and not _answers(address):
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """Runs a headless Chromium while the context is open; yields its driver.

    Args:
      folder: directory for the profile of the browser.
    """
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={folder}", "--window-size={},{}".format(*SIZE)):
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def segment(driver: webdriver.Chrome, address: str, image: Path, expected: str) -> None:
    """Uploads an image and waits until the page shows a text and all of its images."""
    driver.get(address)
    wait = WebDriverWait(driver, SECONDS)
    field = wait.until(lambda page: page.find_element(CSS, "input[type=file]"))
    field.send_keys(str(image))
    wait.until(lambda page: expected in page.find_element(CSS, "body").text)
    wait.until(lambda page: len(page.find_elements(CSS, "img")) >= 3)
    shown = driver.find_elements(CSS, "img")
    wait.until(lambda page: all(image.get_property("naturalWidth") for image in shown))


def main() -> None:
    """Writes the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "app.png")
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(chosen.model) as address,
        browser(Path(folder) / "profile") as driver,
    ):
        image = Path(folder) / "cat.png"
        PIL.Image.fromarray(skimage.data.chelsea()).save(image)
        # The first answer includes what the server does once; the second is the usual one.
        segment(driver, address, image, "cat")
        segment(driver, address, image, "cat")
        driver.save_screenshot(str(chosen.output))


if __name__ == "__main__":
    main()
