"""What each command imports: start-up time is mostly imports, and timed tests are unreliable."""

import json
import subprocess
import sys

import jax
import numpy as np
from PIL import Image
from random_variables import random_variables

from deeplab_jax.checkpointing import ModelDescription, write_model
from deeplab_jax.cli.main import COMMANDS
from deeplab_jax.models import create_model

NEURAL = ("jax", "flax", "optax", "orbax")
DATA = ("grain", "tensorflow_datasets", "array_record")
PLOTS = ("matplotlib", "tensorboardX")
# Each list of commands runs in one process, in this order; none may import the packages.
PROGRAM = """
import contextlib, io, json, sys
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run

commands, forbidden = json.load(sys.stdin)
found = []
for words in commands:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        status = run(words, Console())
    found.append([words, status, [name for name in forbidden if name in sys.modules]])
print(json.dumps(found))
"""
DATA_FLAGS = ["--dataset=camvid", "--split=val", "--data_dir=nowhere"]
CAMVID = ["--config=camvid:cpu", "--workdir=unwritten"]


def imported(commands, forbidden, folder):
    """Returns [words, exit status, the forbidden packages imported so far] of each command."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([commands, forbidden]),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def test_help_imports_no_library(tmp_path):
    commands = [["--help"], *([command, "--help"] for command in COMMANDS)]
    forbidden = (*NEURAL, *DATA, *PLOTS, "cv2", "tensorstore", "torch", "tensorflow")
    for words, status, found in imported(commands, forbidden, tmp_path):
        assert (words, status, found) == (words, 0, [])


def test_mistakes_are_found_before_jax_is_imported(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no image")
    (tmp_path / "model").mkdir()
    commands = [
        ["trian"],
        *([command, "--nonsense=1"] for command in COMMANDS),
        ["predict", "--model=nowhere", "--output=out", "missing.jpg"],
        ["predict", "--model=nowhere", "--output=out", "photo.jpg"],
        ["predict", "--model=model", "--output=out", "photo.jpg"],
        ["predict", "--model=nowhere", "--output=out", "photo.jpg", "--scales=0"],
        ["predict", "--model=nowhere", "--output=out", "photo.jpg", "--crf=nonsense"],
        ["convert", "missing.tflite", "--output=out"],
        ["inspect", "--model=nowhere"],
        ["inspect", "deeplab_v3", "--size=1"],
        ["inspect", "deeplab_v4"],
        ["inspect", "deeplab_v3", "--backbone=resnet_51"],
        ["inspect", "deeplab_v3", "--set=output_strid=8"],
        ["export", "--model=nowhere", "--format=onnx", "--output=out.onnx"],
        ["train", "--config=nonsense", "--workdir=unwritten"],
        ["train", *CAMVID, "--config.training.num_stesp=3"],
        ["train", *CAMVID, "--config.seed=few"],
        ["evaluate", "--model=nowhere", *DATA_FLAGS],
        ["prepare", "nonsense", "--data_dir=data"],
        ["benchmark", "nonsense"],
        # These look for a prepared data set.
        ["train", *CAMVID, "--config.data.data_dir=nowhere"],
        ["evaluate", "--model=model", *DATA_FLAGS],
        ["crf-search", "--model=model", *DATA_FLAGS],
        ["quantize", "--model=model", "--output=out", *DATA_FLAGS],
        ["prune", "--model=model", "--output=out", "--structured", *DATA_FLAGS],
    ]
    for words, status, found in imported(commands, NEURAL, tmp_path):
        assert (words, status, found) == (words, 2, [])


def test_models_is_listed_without_jax(tmp_path):
    assert imported([["models"]], (*NEURAL, *DATA, *PLOTS), tmp_path) == [[["models"], 0, []]]


def test_descriptions_are_printed_without_jax(tmp_path):
    for words in (["inspect", "--set"], ["inspect", "--config"]):
        assert imported([words], (*NEURAL, *DATA, *PLOTS), tmp_path) == [[words, 0, []]]


def test_inspect_imports_neither_data_nor_plots(tmp_path):
    words = ["inspect", "deeplab_v3", "--backbone=mobilenet_v2"]
    forbidden = ("optax", "orbax", "cv2", *DATA, *PLOTS)
    assert imported([words], forbidden, tmp_path) == [[words, 0, []]]


def test_predict_imports_neither_training_nor_orbax(tmp_path):
    model = create_model("deeplab_v3", backbone="mobilenet_v2", num_classes=2, output_stride=32)
    variables = random_variables(model, jax.ShapeDtypeStruct((1, 33, 33, 3), np.uint8))
    colors = ((0, 0, 0), (9, 9, 9))
    description = ModelDescription(
        "deeplab_v3", model.architecture.describe(), ("sky", "tree"), colors
    )
    write_model(tmp_path / "model", description, variables)
    Image.fromarray(np.zeros((33, 33, 3), np.uint8)).save(tmp_path / "photo.png")
    words = ["predict", "--model=model", "--output=out", "photo.png"]
    forbidden = ("optax", "orbax", "deeplab_jax.training", *DATA, *PLOTS)
    assert imported([words], forbidden, tmp_path) == [[words, 0, []]]
