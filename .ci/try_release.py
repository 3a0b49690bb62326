"""Checks built distributions, and tries the wheel in an environment that holds nothing else.

Usage: python .ci/try_release.py DIRECTORY
"""

import os
import pathlib
import runpy
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email.parser import Parser

IN_WHEEL = (
    "deeplab_jax/py.typed",
    "deeplab_jax/configs/shapes.py",
    "deeplab_jax/data/classes/camvid.txt",
    "deeplab_jax/data/__init__.pyi",
    "deeplab_jax/export/page/index.html",
    "deeplab_jax/export/page/worker.js",
    "deeplab_jax/pretrained/published_models.toml",
)
NOT_IN_WHEEL = ("tests/", "experiments/", "docs/", "build/")
TINY = (
    *("--config.model.depth_multiplier=0.25", "--config.model.aspp_channels=8"),
    *("--config.model.decoder_convs=((3, 8),)", "--config.augmentation.crop_size=33,49"),
    *("--config.training.num_steps=2", "--config.training.batch_size=2"),
)
COMMANDS = (
    ("--help",),
    ("models",),
    ("inspect", "deeplab_v3plus", "--backbone=mobilenet_v2"),
    ("prepare", "shapes", "--data_dir=data", "--num_train=4", "--num_val=2"),
    ("train", "--config=shapes:cpu", "--config.data.data_dir=data", "--workdir=run", *TINY),
    ("evaluate", "--model=run", "--data_dir=data", "--dataset=shapes", "--split=val"),
    ("push", "--model=run", "--output=shared", "--license=apache-2.0"),
    ("push", "--model=shared", "--repo=user/tiny"),
)
# The same model as trained, as a directory, and from a server that behaves like the Hub.
SAME_MODELS = ("run", "shared", "hf://user/tiny")
# A server with the endpoints of the Hub; it needs the standard library only.
HUB = pathlib.Path(__file__).parents[1] / "tests" / "helpers" / "hub_server.py"


def check_wheel(wheel: pathlib.Path) -> None:
    """Exits with a message if the wheel lacks a file, holds a wrong one or has poor metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [path] = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
    lacking = [name for name in IN_WHEEL if name not in names]
    beyond = [name for name in names if name.startswith(NOT_IN_WHEEL)]
    if lacking or beyond:
        sys.exit(f"{wheel.name} lacks {lacking} and must not hold {beyond[:5]}")
    if not any(name.endswith("/LICENSE") for name in names):
        sys.exit(f"{wheel.name} holds no LICENSE")
    for field in ("Name", "Version", "Summary", "Requires-Python", "License-Expression"):
        if not metadata[field]:
            sys.exit(f"{wheel.name} states no {field}")


def check_source(source: pathlib.Path) -> None:
    """Exits with a message if a wheel cannot be built from the source distribution alone."""
    with tarfile.open(source) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder, filter="data")
        [root] = pathlib.Path(folder).iterdir()
        words = ["-m", "pip", "--quiet", "wheel", "--no-deps", f"--wheel-dir={folder}", str(root)]
        subprocess.run([sys.executable, *words], check=True)
        [wheel] = pathlib.Path(folder).glob("*.whl")
        check_wheel(wheel)


def try_wheel(wheel: pathlib.Path) -> None:
    """Installs the wheel with its dependencies alone, and runs the main commands.

    Exits with a message if a shared model predicts another mask than the trained one.
    """
    with tempfile.TemporaryDirectory() as folder:
        bin_ = pathlib.Path(folder) / "venv" / "bin"
        venv.create(bin_.parent, with_pip=True)
        subprocess.run([bin_ / "python", "-m", "pip", "--quiet", "install", wheel], check=True)
        with runpy.run_path(str(HUB))["serving_hub"]() as hub:
            hub_variables = {"HF_ENDPOINT": hub.url, "HF_HOME": f"{folder}/hub"}
            hub_variables |= {"HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1"}

            def run(*words: str) -> None:
                print("deeplab-jax", *words, flush=True)
                subprocess.run(
                    [bin_ / "deeplab-jax", *words],
                    check=True,
                    cwd=folder,
                    env=os.environ | hub_variables,
                    stdout=subprocess.DEVNULL,
                )

            for words in COMMANDS:
                run(*words)
            masks = set()
            for number, model in enumerate(SAME_MODELS):
                output = f"masks{number}"
                run("predict", f"--model={model}", f"--output={output}", "shared/example.png")
                masks.add((pathlib.Path(folder) / output / "example.png").read_bytes())
        if len(masks) != 1:
            sys.exit(f"the masks of {', '.join(SAME_MODELS)} differ")


def main(directory: pathlib.Path) -> None:
    """Checks one source distribution and one wheel."""
    [wheel], [source] = directory.glob("*.whl"), directory.glob("*.tar.gz")
    check_wheel(wheel)
    check_source(source)
    try_wheel(wheel.resolve())
    print(f"{wheel.name} and {source.name} are ready")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
