"""Every block of code in README and docs runs here at small size, or states what it needs.

Doctest runs `pycon` blocks (test_docs.py), and test_applications.py runs the worked examples.
A block of `bash` or `python` with a line `# needs: …` is not run; every other one is, in the order
of its page, in a folder with the files that the pages assume: `mine`, `photos`, and for most pages
`data` and `runs/mine`.
"""

import logging
import os
import pathlib
import re
import subprocess
import sys

import pytest

from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.visualize import write_class_map, write_picture

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DIRECTIVE = re.compile(r"^```\{.*?^```$", re.DOTALL | re.MULTILINE)
RUN, SHOWN = {"bash", "python"}, {"pycon", "text", "ini", "yaml"}
ELSEWHERE = {"applications.md"}
# Pages that prepare data and train themselves.
FROM_THE_START = {"README.md", "first_steps.md"}
# Training at small size: these are appended, and numbers of steps are replaced.
SMALL = " --config.training.batch_size=4 --config.model.depth_multiplier=0.35"
CROP = " --config.augmentation.crop_size=65,65"


def fences(page: pathlib.Path) -> list[tuple[str, str]]:
    """Returns language and text of the blocks of a page; directives of Sphinx are left out."""
    return FENCE.findall(DIRECTIVE.sub("", page.read_text("utf-8")))


def blocks(page: pathlib.Path) -> list[tuple[str, str]]:
    """Returns language and text of the blocks of a page that are run."""
    return [(kind, code) for kind, code in fences(page) if kind in RUN and "# needs:" not in code]


RUNNABLE = [page for page in PAGES if page.name not in ELSEWHERE and blocks(page)]


def small(code: str) -> str:
    """Returns commands or Python in which trainings are short and networks narrow."""
    code = re.sub(r"folder:cpu(,steps=\d+)?", "folder:cpu,steps=2", code.replace("\\\n", " "))
    lines = []
    for line in code.splitlines():
        if re.search(r"deeplab-jax (train|distill) ", line):
            line += SMALL + ("" if "crop_size" in line else CROP)
        lines.append(line)
    return "\n".join(lines)


def run_commands(code: str, folder: pathlib.Path) -> None:
    """Runs a block of commands in a folder."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", small(code)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (small(code), done.stdout[-1500:], done.stderr[-3000:])


def write_files(folder: pathlib.Path) -> None:
    """Writes the program `deeplab-jax`, images and masks of drawn shapes, and photographs."""
    program = folder / "bin" / "deeplab-jax"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deeplab_jax.cli.main "$@"\n')
    program.chmod(0o755)
    for name in ("mine/images", "mine/masks", "photos"):
        (folder / name).mkdir(parents=True)
    for index in range(24):
        image, class_map = draw_scene(seed=0, split=0, index=index)
        write_picture(folder / "mine" / "images" / f"{index:03}.png", image)
        write_class_map(folder / "mine" / "masks" / f"{index:03}.png", class_map, SHAPES.palette)
    (folder / "mine" / "classes.txt").write_text("\n".join(SHAPES.class_names))
    write_picture(folder / "photos" / "large.png", draw_scene(0, 1, 0, size=161)[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with prepared data and a trained workdir; pages write beside them."""
    folder = tmp_path_factory.mktemp("trained")
    write_files(folder)
    run_commands(
        "deeplab-jax prepare folder --source=mine --classes=mine/classes.txt --data_dir=data\n"
        "deeplab-jax train --config=folder:cpu --workdir=runs/mine",
        folder,
    )
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_has_a_language_that_is_run_or_shown(page):
    languages = {kind for kind, _ in fences(page)}
    assert languages <= RUN | SHOWN


def test_scripts_for_slurm_begin_with_their_interpreter():
    """`sbatch` rejects a script whose first line does not begin with `#!`."""
    scripts = [code for page in PAGES for _, code in fences(page) if "#SBATCH" in code]
    assert scripts
    assert all(code.startswith("#!/bin/bash\n") for code in scripts)


def test_most_pages_have_blocks_that_run():
    names = {page.name for page in RUNNABLE}
    assert {"README.md", "first_steps.md", "data.md", "training.md", "inference.md"} <= names


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, request, tmp_path, monkeypatch):
    if page.name in FROM_THE_START:
        folder = tmp_path
        write_files(folder)
    else:
        folder = request.getfixturevalue("trained")
    if page.name == "first_steps.md":
        # The page draws the data itself.
        (folder / "mine").rename(folder / "drawn")
    monkeypatch.chdir(folder)
    request.addfinalizer(lambda: logging.getLogger("deeplab_jax").setLevel(logging.NOTSET))
    names: dict[str, object] = {}
    for kind, code in blocks(page):
        if kind == "bash":
            run_commands(code, folder)
        else:
            exec(compile(small(code), str(page), "exec"), names)
