"""Every command and every script of applications.md runs and gives what the page says."""

import csv
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "applications.md").read_text("utf-8")
# Doctest runs the fences of `pycon`.
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = {
    "deeplab-jax": [sys.executable, "-m", "deeplab_jax.cli.main"],
    "python": [sys.executable],
}
CAMVID = "path/to/CamVid"
PUBLISHED = "deeplabv3_mobilenetv2_voc_uint8"


def blocks(section: str) -> list[tuple[str, str]]:
    """Returns the language and text of each fence below a heading."""
    body = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [block for block in FENCED.findall(body) if block[0] != "pycon"]


def run_section(section: str, folder: pathlib.Path, **replaced: object) -> None:
    """Runs a section's fences in their order, in the folder."""
    for language, text in blocks(section):
        for old, new in replaced.items():
            text = text.replace(globals()[old], str(new))
        if language == "python":
            _run([sys.executable, "-c", text], folder)
        elif CAMVID not in text:
            _run_commands(text, folder)


def _run_commands(text: str, folder: pathlib.Path) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("#"):
            continue
        program, *words = shlex.split(line)
        words = [str(ROOT / word) if word.startswith("docs/") else word for word in words]
        _run([*PROGRAMS[program], *words], folder)


def _run(command: list[str], folder: pathlib.Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (command, done.stderr[-3000:])


def ious(folder: pathlib.Path) -> dict[str, float]:
    """Returns what `evaluate` wrote of each class."""
    return json.loads((folder / "metrics.json").read_text())["per_class_iou"]


def test_every_kind_of_fence_is_run():
    """Doctest or this file runs them; no test runs another language."""
    assert {language for language, _ in FENCED.findall(PAGE)} == {"bash", "python", "pycon"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_street_is_learned_listed_and_watched(tmp_path):
    run_section("Driving scenes", tmp_path)
    found = ious(tmp_path / "street_val")
    assert min(found[name] for name in ("sky", "road", "pavement")) > 0.85
    assert min(found.values()) > 0.3
    with PIL.Image.open(tmp_path / "street_predictions" / "003.png") as mask:
        assert mask.size == (161, 97)

    run_section("Objects and boxes", tmp_path)
    objects = json.loads((tmp_path / "objects.json").read_text())
    assert {"car", "person"} == {each["class_name"] for each in objects}
    assert all(0.3 < each["score"] <= 1 for each in objects)
    assert (tmp_path / "objects.png").is_file()

    run_section("Video", tmp_path)
    with open(tmp_path / "areas.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    areas = np.array([[int(value) for key, value in row.items() if key != "frame"] for row in rows])
    assert (areas.sum(axis=1) == 97 * 161).all()
    cars = np.array([int(row["car"]) for row in rows])
    assert cars.max() > 1.5 * cars.min()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rare_spots_in_16_bit_images_are_learned(tmp_path):
    run_section("Medical images", tmp_path)
    model = json.loads((tmp_path / "runs" / "cells" / "model.json").read_text())
    assert model["intensity_range"] == [0, 4095]
    iou = ious(tmp_path / "cells_val")["spot"]
    # Finding nothing gives 0, calling everything a spot 0.03.
    assert 2 * iou / (1 + iou) > 0.6
    # The files themselves, through `predict`, are as good as what was prepared from them.
    found, true, both = 0, 0, 0
    for path in sorted((tmp_path / "cells" / "masks").glob("*.png")):
        truth = np.asarray(PIL.Image.open(path)) == 1
        mask = np.asarray(PIL.Image.open(tmp_path / "cells_predictions" / path.name)) == 1
        found, true, both = found + mask.sum(), true + truth.sum(), both + (mask & truth).sum()
    assert 2 * both / (found + true) > 0.6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_backgrounds_are_replaced(shared, tmp_path):
    weights = shared / "weights" / "deeplabv3_mnv2_voc_513_uint8.tflite"
    run_section("Background replacement", tmp_path, PUBLISHED=weights)
    photo, green = (
        np.asarray(PIL.Image.open(tmp_path / f"{name}.png"), int) for name in ("blurred", "green")
    )
    assert photo.shape == green.shape == (512, 512, 3)
    # The corner is background; the middle of the suit is the person's.
    assert np.abs(green[:20, -20:] - (0, 177, 64)).max() < 30
    assert np.abs(green[380:420, 200:260] - photo[380:420, 200:260]).max() < 60


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_camvids_commands_run(shared, tmp_path):
    text = next(text for _, text in blocks("Driving scenes") if CAMVID in text)
    text = text.replace(CAMVID, str(shared / "data" / "camvid"))
    text = text.replace("camvid:cpu", "camvid:cpu,steps=2")
    _run_commands(text.replace("--split=val", "--split=val --limit=2"), tmp_path)
    assert len(ious(tmp_path / "runs" / "camvid" / "val")) == 11
